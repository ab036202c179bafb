-- Statements by which events that were quarantined or parked are decided about again.

-- name: read_queue
-- What waits in these partitions, with its bytes; the offset row's fence keeps two workers from taking the same.
SELECT q.queue_number, q.said_by, d.partition, d.log_offset, d.index_in_message, d.outcome, d.settled, d.source, d.log_time,
    d.payload
FROM decision_queue q JOIN decision d USING (topic, partition, log_offset, index_in_message)
WHERE q.topic = %(topic)s AND q.partition = ANY(%(partitions)s::int[])
ORDER BY q.queue_number
LIMIT %(rows_max)s

-- name: change_decisions
-- The new decision in place of the old one, which goes on record. A row that somebody settled meanwhile stays.
WITH new AS (
    SELECT * FROM unnest(
        %(partitions)s::int[], %(offsets)s::bigint[], %(indexes)s::int[], %(outcomes)s::text[], %(reasons)s::text[],
        %(details)s::text[], %(digests)s::bytea[], %(said_by)s::text[])
        AS n (partition, log_offset, index_in_message, outcome, reason, detail, content_digest, said_by)
), kept AS (
    INSERT INTO decision_change (log_id, partition, log_offset, index_in_message, from_outcome, from_reason,
        to_outcome, to_reason, said_by)
    SELECT %(log_id)s, n.partition, n.log_offset, n.index_in_message, d.outcome, d.reason, n.outcome, n.reason,
        n.said_by
    FROM new n JOIN decision d ON d.topic = %(topic)s AND d.partition = n.partition AND d.log_offset = n.log_offset
        AND d.index_in_message = n.index_in_message
)
UPDATE decision d SET outcome = n.outcome, reason = n.reason, detail = n.detail, content_digest = n.content_digest,
    payload = CASE WHEN n.outcome IN ('quarantined', 'parked') THEN d.payload END,
    settled = n.outcome IN ('counted', 'ignored', 'control')
FROM new n
WHERE d.topic = %(topic)s AND d.partition = n.partition AND d.log_offset = n.log_offset
    AND d.index_in_message = n.index_in_message

-- name: delete_queued
-- Only what was read: what came meanwhile waits for the next turn.
DELETE FROM decision_queue WHERE queue_number = ANY(%(numbers)s::bigint[])
