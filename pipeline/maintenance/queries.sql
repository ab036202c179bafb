-- name: lock_changes
-- As a change of the catalogue: no other one, and no flush, until the commit.
SELECT last FROM known_number FOR UPDATE

-- name: hold_flushes
SELECT pg_advisory_xact_lock(hashtextextended('rackmeter:meters', 0))

-- name: read_edge
SELECT dropped_before, edge_at FROM retention_edge ORDER BY known_number DESC LIMIT 1

-- name: record_edge
INSERT INTO retention_edge (known_number, edge_at, dropped_before)
VALUES (%(known_number)s, %(edge_at)s, %(dropped_before)s)

-- name: holds
-- What would be lost or become wrong if slots before the edge were dropped; all in one snapshot.
-- A month in which nothing was used may never have been closed: marks reach an hour back and make its items.
SELECT 'period_open' AS reason, i.account_id AS about, count(DISTINCT i.period_start) AS count
FROM billed_item i
LEFT JOIN billing_period b USING (account_id, period_start)
LEFT JOIN usage_total t USING (billed_item_id)
WHERE i.period_start < %(dropped_before)s AND b.state IS DISTINCT FROM 'closed'
    AND (b.state IS NOT NULL OR t.segments IS NULL
        OR EXISTS (SELECT FROM jsonb_array_elements(t.segments) AS s WHERE (s ->> 'quantity')::numeric <> 0))
GROUP BY i.account_id
UNION ALL
SELECT 'total_unbooked', i.account_id, count(*)
FROM billed_item i LEFT JOIN usage_total t USING (billed_item_id) LEFT JOIN booked_charge c USING (billed_item_id)
WHERE i.period_start < %(dropped_before)s
    AND (c.revision IS DISTINCT FROM t.revision OR c.generation IS DISTINCT FROM t.generation OR c.outcome <> 'rated')
GROUP BY i.account_id
UNION ALL
SELECT 'change_open', i.account_id, count(*)
FROM dirty_item d JOIN billed_item i USING (billed_item_id)
WHERE i.period_start < %(dropped_before)s
GROUP BY i.account_id
UNION ALL
SELECT 'change_open', coalesce(m.subject, m.subscription_id), count(*)
FROM dirty_mark m WHERE m.time_from < %(dropped_before)s
GROUP BY coalesce(m.subject, m.subscription_id)
UNION ALL
SELECT 'unassigned', s.subject, count(*)
FROM series s JOIN usage_bucket b USING (series_id)
WHERE b.slot_start < %(dropped_before)s AND NOT EXISTS (SELECT FROM assignment a WHERE a.subject = s.subject)
GROUP BY s.subject
ORDER BY 1, 2

-- name: count_behind
SELECT (SELECT count(*) FROM usage_bucket WHERE slot_start < %(dropped_before)s),
    (SELECT count(*) FROM usage_sample s WHERE occurred_at < %(dropped_before)s AND occurred_at < (
        SELECT max(occurred_at) FROM usage_sample
        WHERE sample_stream_id = s.sample_stream_id AND occurred_at < %(dropped_before)s))

-- name: delete_buckets
DELETE FROM usage_bucket WHERE slot_start < %(dropped_before)s

-- name: delete_samples
-- All but the last ones of each stream: what comes next is counted from them.
DELETE FROM usage_sample s
USING (SELECT sample_stream_id, max(occurred_at) AS at FROM usage_sample
       WHERE occurred_at < %(dropped_before)s GROUP BY sample_stream_id) AS last
WHERE s.sample_stream_id = last.sample_stream_id AND s.occurred_at < last.at

-- name: refresh_hours
-- What is looked at outlives its slots, so it is made right before they go.
CALL refresh_continuous_aggregate('usage_by_hour', %s::timestamptz, %s::timestamptz)

-- name: refresh_days
CALL refresh_continuous_aggregate('usage_by_day', NULL, %s::timestamptz)

-- name: refresh_months
CALL refresh_continuous_aggregate('usage_by_month', NULL, %s::timestamptz)

-- name: pin_samples
-- The last samples of each stream, which go with their chunks and are put back.
CREATE TEMPORARY TABLE pinned_sample ON COMMIT DROP AS
SELECT s.*
FROM usage_sample s
JOIN (SELECT sample_stream_id, max(occurred_at) AS at FROM usage_sample
      WHERE occurred_at < %(dropped_before)s GROUP BY sample_stream_id) AS last
    ON last.sample_stream_id = s.sample_stream_id AND last.at = s.occurred_at

-- name: drop_bucket_chunks
SELECT drop_chunks('usage_bucket', older_than => %(dropped_before)s::timestamptz)

-- name: drop_sample_chunks
SELECT drop_chunks('usage_sample', older_than => %(dropped_before)s::timestamptz)

-- name: put_samples_back
INSERT INTO usage_sample SELECT * FROM pinned_sample ORDER BY sample_stream_id ON CONFLICT DO NOTHING
