-- name: remember_log
-- First sight of a topic; later sights compare themselves with this row.
INSERT INTO log (topic, log_id, kafka_topic_id, partition_count)
VALUES (%(topic)s, %(log_id)s, %(kafka_topic_id)s, %(partition_count)s)
ON CONFLICT DO NOTHING

-- name: read_known_log
SELECT log_id, kafka_topic_id, partition_count FROM log WHERE topic = %(topic)s

-- name: read_stage_offsets
SELECT partition, offset_next FROM consumer_offset WHERE topic = %(topic)s AND stage = %(stage)s

-- name: read_generation
SELECT generation FROM installation
