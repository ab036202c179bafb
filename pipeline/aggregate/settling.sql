-- What an operator does about events that did not count.

-- name: queue_decisions
-- Have them decided about again by the worker of their partition. Left out is what another decision could not help: what
-- came under a key that is not its source or on another partition than its home, and messages that nobody can take apart.
INSERT INTO decision_queue (topic, partition, log_offset, index_in_message, said_by)
SELECT topic, partition, log_offset, index_in_message, %(said_by)s
FROM decision d
WHERE topic = %(topic)s AND outcome IN ('quarantined', 'parked') AND NOT settled
    AND index_in_message >= 0 AND source IS NOT NULL AND reason NOT IN ('key_mismatch', 'misrouted')
    AND (%(reason)s::text IS NULL OR reason = %(reason)s)
    AND (%(source)s::text IS NULL OR source = %(source)s)
    AND (%(server)s::text IS NULL OR subject = %(server)s)
    AND (%(since)s::timestamptz IS NULL OR log_time >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR log_time < %(until)s)
ON CONFLICT DO NOTHING

-- name: count_queued
SELECT count(*) FROM decision_queue WHERE topic = %(topic)s

-- name: drop_decisions
-- Let them go: they hold nobody any more. Each is on record with who said so and why.
WITH dropped AS (
    UPDATE decision d SET settled = true, dropped = true
    WHERE topic = %(topic)s AND outcome IN ('quarantined', 'parked', 'conflict') AND NOT settled
        AND (%(reason)s::text IS NULL OR reason = %(reason)s)
        AND (%(source)s::text IS NULL OR source = %(source)s)
        AND (%(server)s::text IS NULL OR subject = %(server)s)
        AND (%(since)s::timestamptz IS NULL OR log_time >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR log_time < %(until)s)
        AND (%(partition)s::int IS NULL OR partition = %(partition)s)
        AND (%(offset)s::bigint IS NULL OR log_offset = %(offset)s)
        AND (%(index)s::int IS NULL OR index_in_message = %(index)s)
    RETURNING topic, partition, log_offset, index_in_message, outcome, reason
)
INSERT INTO decision_change (log_id, partition, log_offset, index_in_message, from_outcome, from_reason, to_outcome,
    to_reason, said_by, note)
SELECT log_id, partition, log_offset, index_in_message, outcome, reason, 'dropped', 'operator', %(said_by)s, %(note)s
FROM dropped JOIN log USING (topic)
