-- name: read_marks
-- The oldest marks; only rows seen here are deleted later.
SELECT mark_number, subject, meter, subscription_id, time_from, time_to
FROM dirty_mark ORDER BY mark_number LIMIT %(marks_max)s

-- name: delete_marks
DELETE FROM dirty_mark WHERE mark_number = ANY(%(mark_numbers)s::bigint[])

-- name: read_usage_span
-- The event times there is any usage for: a gauge holds on behind its last sample.
SELECT min(first_at),
       max(last_at) + make_interval(secs => (SELECT coalesce(max(gap_seconds_max), 0) FROM meter_version))
FROM source_subject

-- name: read_subscriptions
SELECT s.subscription_id, s.account_id, a.time_zone, s.starts_at, coalesce(s.ends_at, 'infinity')
FROM subscription_span s JOIN billing_account a USING (account_id)

-- name: read_price_models
SELECT price_version_id, model FROM price_version

-- name: create_items
INSERT INTO billed_item (account_id, subscription_id, item, period_start, period_end, subject)
SELECT * FROM unnest(%(accounts)s::text[], %(subscriptions)s::text[], %(items)s::text[],
                     %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(subjects)s::text[])
ON CONFLICT (subscription_id, item, period_start, subject) DO NOTHING

-- name: mark_items
INSERT INTO dirty_item (billed_item_id)
SELECT b.billed_item_id
FROM unnest(%(subscriptions)s::text[], %(items)s::text[], %(starts)s::timestamptz[], %(subjects)s::text[])
    AS k (subscription_id, item, period_start, subject)
JOIN billed_item b USING (subscription_id, item, period_start, subject)

-- name: take_items
-- Items that are due: never computed, or last computed longer ago than the pace.
SELECT d.mark_numbers, b.billed_item_id, b.account_id, b.subscription_id, b.item, b.period_start, b.period_end, b.subject
FROM (SELECT billed_item_id, array_agg(mark_number) AS mark_numbers
      FROM dirty_item GROUP BY billed_item_id) AS d
JOIN billed_item b USING (billed_item_id)
LEFT JOIN usage_total t USING (billed_item_id)
WHERE t.computed_at IS NULL OR t.computed_at <= now() - make_interval(secs => %(pace_seconds)s)
ORDER BY b.billed_item_id
LIMIT %(items_max)s

-- name: read_totals
SELECT billed_item_id, generation, revision, segments FROM usage_total WHERE billed_item_id = ANY(%(items)s::bigint[])

-- name: read_generation
SELECT generation FROM installation

-- name: sum_additive
-- Quantities of stretches: whole UTC days from day sums, the rest from buckets. Not for meters that do not add up.
WITH stretch AS (
    SELECT s.*, (s.time_from AT TIME ZONE 'UTC') AS from_utc, (s.time_to AT TIME ZONE 'UTC') AS to_utc
    FROM unnest(%(items)s::bigint[], %(segments)s::int[], %(meters)s::text[], %(subjects)s::text[],
                %(froms)s::timestamptz[], %(tos)s::timestamptz[])
        AS s (billed_item_id, segment, meter, subject, time_from, time_to)
), cut AS (
    SELECT stretch.*, r.series_id,
           (date_trunc('day', from_utc + interval '1 day - 1 microsecond'))::date AS day_from,
           (date_trunc('day', to_utc))::date AS day_to
    FROM stretch
    JOIN meter_version m ON m.meter = stretch.meter AND m.aggregation <> 'active_hours'
    JOIN series r ON r.subject = stretch.subject AND r.meter_version_id = m.meter_version_id
), parts AS (
    SELECT cut.billed_item_id, cut.segment, d.quantity
    FROM cut JOIN usage_day d ON d.series_id = cut.series_id AND d.day >= cut.day_from AND d.day < cut.day_to
    UNION ALL
    SELECT cut.billed_item_id, cut.segment, b.quantity
    FROM cut JOIN usage_bucket b ON b.series_id = cut.series_id
        AND b.slot_start >= cut.time_from
        AND b.slot_start < least(cut.time_to, cut.day_from::timestamp AT TIME ZONE 'UTC')
    UNION ALL
    SELECT cut.billed_item_id, cut.segment, b.quantity
    FROM cut JOIN usage_bucket b ON b.series_id = cut.series_id
        AND cut.day_to >= cut.day_from
        AND b.slot_start >= cut.day_to::timestamp AT TIME ZONE 'UTC' AND b.slot_start < cut.time_to
)
SELECT billed_item_id, segment, trim_scale(sum(quantity)) FROM parts GROUP BY billed_item_id, segment

-- name: count_active_hours
-- Hours, counted from the period's start, in which a server was seen; an hour belongs to who held its start.
WITH stretch AS (
    SELECT s.*,
           ceil(extract(epoch FROM s.time_from - s.period_start) / 3600)::bigint AS hour_from,
           ceil(extract(epoch FROM s.time_to - s.period_start) / 3600)::bigint AS hour_to
    FROM unnest(%(items)s::bigint[], %(segments)s::int[], %(meters)s::text[], %(subjects)s::text[],
                %(froms)s::timestamptz[], %(tos)s::timestamptz[], %(starts)s::timestamptz[])
        AS s (billed_item_id, segment, meter, subject, time_from, time_to, period_start)
), hours AS (
    SELECT DISTINCT stretch.billed_item_id, stretch.segment, stretch.subject,
           floor(extract(epoch FROM b.slot_start - stretch.period_start) / 3600)::bigint AS hour
    FROM stretch
    JOIN meter_version m ON m.meter = stretch.meter AND m.aggregation = 'active_hours'
    JOIN series r ON r.subject = stretch.subject AND r.meter_version_id = m.meter_version_id
    JOIN usage_bucket b ON b.series_id = r.series_id
        AND b.slot_start >= stretch.period_start + stretch.hour_from * interval '1 hour'
        AND b.slot_start < stretch.period_start + stretch.hour_to * interval '1 hour'
    -- A clock moved by half an hour leaves a last short hour.
    JOIN billed_item i ON i.billed_item_id = stretch.billed_item_id AND b.slot_start < i.period_end
)
SELECT billed_item_id, segment, count(*)::numeric FROM hours GROUP BY billed_item_id, segment

-- name: write_totals
INSERT INTO usage_total (billed_item_id, generation, revision, segments)
SELECT i, %(generation)s, r, s::jsonb FROM unnest(%(items)s::bigint[], %(revisions)s::bigint[], %(documents)s::text[])
    AS t (i, r, s)
ORDER BY i
ON CONFLICT (billed_item_id) DO UPDATE SET generation = excluded.generation, revision = excluded.revision,
    segments = excluded.segments, computed_at = now(), sent_at = NULL, send_count = 0

-- name: touch_totals
-- Computed again with the same result: the pace counts from now.
UPDATE usage_total SET computed_at = now() WHERE billed_item_id = ANY(%(items)s::bigint[])

-- name: delete_item_marks
DELETE FROM dirty_item WHERE mark_number = ANY(%(mark_numbers)s::bigint[])

-- name: take_unsent
-- What was computed and not yet put on the topic: the normal way.
SELECT t.billed_item_id, t.generation, t.revision, t.segments, b.period_start, b.period_end, b.subject, b.item, a.currency
FROM usage_total t JOIN billed_item b USING (billed_item_id) JOIN billing_account a USING (account_id)
WHERE t.sent_at IS NULL
ORDER BY t.billed_item_id LIMIT %(items_max)s

-- name: take_unbooked
-- The sweep: sent, not booked and rated at its revision, and waiting longer than its back-off allows.
SELECT t.billed_item_id, t.generation, t.revision, t.segments, b.period_start, b.period_end, b.subject, b.item, a.currency
FROM usage_total t JOIN billed_item b USING (billed_item_id) JOIN billing_account a USING (account_id)
LEFT JOIN booked_charge c USING (billed_item_id)
WHERE t.sent_at < now() - make_interval(secs => %(sweep_seconds)s) * (2 ^ least(t.send_count - 1, 6))
    AND (c.billed_item_id IS NULL OR c.generation <> t.generation OR c.revision < t.revision OR c.outcome <> 'rated')
ORDER BY t.sent_at LIMIT %(items_max)s

-- name: record_sent
UPDATE usage_total t SET sent_at = now(), send_count = send_count + 1
FROM unnest(%(items)s::bigint[], %(revisions)s::bigint[]) AS s (billed_item_id, revision)
WHERE t.billed_item_id = s.billed_item_id AND t.revision = s.revision

-- name: count_open
-- For the gauges: changes no total has taken up, and totals not booked.
SELECT (SELECT count(*) FROM dirty_mark) + (SELECT count(*) FROM dirty_item),
       (SELECT count(*) FROM usage_total t LEFT JOIN booked_charge c USING (billed_item_id)
        WHERE c.billed_item_id IS NULL OR c.generation <> t.generation OR c.revision < t.revision)
