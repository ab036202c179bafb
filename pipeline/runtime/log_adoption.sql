-- name: lock_positions
-- Every stage's position in the topic, locked: a worker that still flushes is waited for, and fenced afterwards.
SELECT stage, partition, offset_next FROM consumer_offset
WHERE topic = %(topic)s
ORDER BY stage COLLATE "C", partition
FOR UPDATE

-- name: adopt_log
UPDATE log SET log_id = %(log_id)s, kafka_topic_id = %(kafka_topic_id)s, adopted_at = now()
WHERE topic = %(topic)s

-- name: move_position
-- Raises the flush number: what was in a worker's memory is refused.
UPDATE consumer_offset
SET log_id = %(log_id)s, offset_next = %(offset_next)s, flush_number = flush_number + 1, updated_at = now()
WHERE topic = %(topic)s AND stage = %(stage)s AND partition = %(partition)s

-- name: forget_log_time
-- What was too far in the future when it was first read is so again.
UPDATE consumer_offset SET log_time_max = NULL WHERE topic = %(topic)s

-- name: set_aside_decisions
-- Positions of the old log mean other events in the new one. The rows stay as they are, under the old log's name.
UPDATE decision SET topic = %(old_name)s WHERE topic = %(topic)s

-- name: set_aside_tallies
UPDATE partition_tally SET topic = %(old_name)s WHERE topic = %(topic)s

-- name: sources_read
-- Who had been read from the topic, and up to when by the log's clock.
SELECT e.source, max(o.log_time_max)
FROM (SELECT DISTINCT source, partition FROM identity_epoch) e
LEFT JOIN consumer_offset o ON o.topic = %(topic)s AND o.stage = 'aggregate' AND o.partition = e.partition
GROUP BY e.source
ORDER BY e.source COLLATE "C"
