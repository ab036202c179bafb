-- name: lock_positions
-- Every stage's position in the topic, locked: a worker that still flushes is waited for, and fenced afterwards.
SELECT stage, partition, offset_next, log_time_max FROM consumer_offset
WHERE topic = %(topic)s
ORDER BY stage COLLATE "C", partition
FOR UPDATE

-- name: go_on_in_log
-- The same records under another id: offsets mean what they meant.
UPDATE log
SET log_id = %(log_id)s, kafka_topic_id = %(kafka_topic_id)s, adopted_at = now(),
    earlier_ids = CASE log_id WHEN %(log_id)s THEN earlier_ids ELSE earlier_ids || log_id END
WHERE topic = %(topic)s

-- name: count_log
UPDATE log SET number = number + 1 WHERE topic = %(topic)s

-- name: keep_log
-- The log that was, under a name of its own.
INSERT INTO log (topic, log_id, kafka_topic_id, partition_count, adopted_at, number, earlier_ids, set_aside_from)
SELECT %(old_name)s, log_id, kafka_topic_id, partition_count, adopted_at, number - 1, earlier_ids, topic
FROM log WHERE topic = %(topic)s

-- name: begin_log
-- Other records: the next log of the topic.
UPDATE log SET log_id = %(log_id)s, kafka_topic_id = %(kafka_topic_id)s, adopted_at = now(), earlier_ids = '{}'
WHERE topic = %(topic)s

-- name: keep_positions
-- How far each stage came in it.
INSERT INTO consumer_offset (stage, topic, partition, log_id, offset_next, offset_first, flush_number, generation,
    log_time_max, updated_at)
SELECT stage, %(old_name)s, partition, log_id, offset_next, offset_first, flush_number, generation, log_time_max, updated_at
FROM consumer_offset WHERE topic = %(topic)s

-- name: move_position
-- Raises the flush number: what was in a worker's memory is refused. In another log time begins anew: what was too far
-- in the future by the old one's may be so again.
UPDATE consumer_offset
SET log_id = %(log_id)s, offset_next = %(offset_next)s, flush_number = flush_number + 1, updated_at = now(),
    offset_first = CASE WHEN %(is_from_start)s THEN %(offset_next)s ELSE offset_first END,
    log_time_max = CASE WHEN %(is_from_start)s THEN NULL ELSE log_time_max END
WHERE topic = %(topic)s AND stage = %(stage)s AND partition = %(partition)s

-- name: set_aside_decisions
-- Positions of the old log mean other events in the new one. The rows stay as they are, under the old log's name.
UPDATE decision SET topic = %(old_name)s WHERE topic = %(topic)s

-- name: set_aside_tallies
UPDATE partition_tally SET topic = %(old_name)s WHERE topic = %(topic)s

-- name: add_lost_numbers
INSERT INTO lost_number (log, source, epoch, numbers)
SELECT %(old_name)s, * FROM unnest(%(sources)s::text[], %(epochs)s::text[], %(numbers)s::text[]::int8multirange[])

-- name: sources_read
-- Who had been read from the topic, and up to when by the log's clock.
SELECT e.source, max(o.log_time_max)
FROM (SELECT DISTINCT source, partition FROM identity_epoch) e
LEFT JOIN consumer_offset o ON o.topic = %(topic)s AND o.stage = 'aggregate' AND o.partition = e.partition
GROUP BY e.source
ORDER BY e.source COLLATE "C"
