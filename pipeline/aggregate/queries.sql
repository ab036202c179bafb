-- name: read_offsets
-- The stage's rows for the partitions assigned; read before anything else a worker remembers.
SELECT partition, offset_next, flush_number, generation, log_id, log_time_max
FROM consumer_offset
WHERE stage = 'aggregate' AND topic = %(topic)s AND partition = ANY(%(partitions)s::int[])
ORDER BY partition

-- name: create_offsets
-- First sight of a partition: it begins at the beginning of the log.
INSERT INTO consumer_offset (stage, topic, partition, log_id, generation)
SELECT 'aggregate', %(topic)s, p, %(log_id)s, i.generation
FROM unnest(%(partitions)s::int[]) p, installation i
ON CONFLICT DO NOTHING

-- name: fence_and_advance
-- The commit point's fence: first statement of a flush, locks the offset rows in partition order.
-- One row comes back for each partition that still stood where this worker left it.
WITH mine AS (
    SELECT o.ctid, f.offset_reached, f.log_time
    FROM unnest(%(partitions)s::int[], %(offsets)s::bigint[], %(flush_numbers)s::bigint[], %(reached)s::bigint[],
                %(log_times)s::timestamptz[]) AS f (partition, offset_next, flush_number, offset_reached, log_time)
    JOIN consumer_offset o ON o.stage = 'aggregate' AND o.topic = %(topic)s AND o.partition = f.partition
        AND o.offset_next = f.offset_next AND o.flush_number = f.flush_number
        AND o.generation = (SELECT generation FROM installation)
        AND o.generation = %(generation)s AND o.log_id = %(log_id)s
    ORDER BY f.partition
    FOR UPDATE OF o
)
UPDATE consumer_offset o
SET offset_next = mine.offset_reached, flush_number = flush_number + 1, log_time_max = mine.log_time, updated_at = now()
FROM mine WHERE o.ctid = mine.ctid
RETURNING o.partition

-- name: add_tallies
INSERT INTO partition_tally AS t
    (topic, partition, received, counted, duplicate, quarantined, parked, ignored, control)
SELECT %(topic)s, * FROM unnest(
    %(partitions)s::int[], %(received)s::bigint[], %(counted)s::bigint[], %(duplicate)s::bigint[],
    %(quarantined)s::bigint[], %(parked)s::bigint[], %(ignored)s::bigint[], %(control)s::bigint[])
ON CONFLICT (topic, partition) DO UPDATE SET
    received = t.received + excluded.received,
    counted = t.counted + excluded.counted,
    duplicate = t.duplicate + excluded.duplicate,
    quarantined = t.quarantined + excluded.quarantined,
    parked = t.parked + excluded.parked,
    ignored = t.ignored + excluded.ignored,
    control = t.control + excluded.control

-- name: read_epochs
-- What is known of the identities a batch speaks of.
SELECT source, epoch, counted::text, quarantined::text, parked::text, dropped::text, first_seen_at
FROM identity_epoch
JOIN unnest(%(sources)s::text[], %(epochs)s::text[]) AS wanted (source, epoch) USING (source, epoch)

-- name: write_epochs
-- Whole states, not differences; fenced by the offset row of the sources' home.
INSERT INTO identity_epoch (source, epoch, partition, first_seen_at, counted, quarantined, parked, dropped)
SELECT * FROM unnest(
    %(sources)s::text[], %(epochs)s::text[], %(partitions)s::int[], %(first_seen)s::timestamptz[], %(counted)s::text[]::int8multirange[],
    %(quarantined)s::text[]::int8multirange[], %(parked)s::text[]::int8multirange[],
    %(dropped)s::text[]::int8multirange[])
ON CONFLICT (source, epoch) DO UPDATE SET
    counted = excluded.counted, quarantined = excluded.quarantined,
    parked = excluded.parked, dropped = excluded.dropped

-- name: write_completeness
INSERT INTO source_completeness AS c (source, epoch, subject, complete_until, number)
SELECT * FROM unnest(%(sources)s::text[], %(epochs)s::text[], %(subjects)s::text[],
                     %(untils)s::text[]::timestamptz[], %(numbers)s::bigint[])
ON CONFLICT (source, epoch, subject) DO UPDATE SET complete_until = excluded.complete_until, number = excluded.number
WHERE excluded.number > c.number

-- name: write_seen
INSERT INTO source_subject AS s (source, subject, event_type, first_at, last_at)
SELECT * FROM unnest(%(sources)s::text[], %(subjects)s::text[], %(event_types)s::text[],
                     %(firsts)s::timestamptz[], %(lasts)s::timestamptz[])
ON CONFLICT (source, subject, event_type) DO UPDATE SET
    first_at = least(s.first_at, excluded.first_at), last_at = greatest(s.last_at, excluded.last_at)

-- name: copy_decisions
COPY decision (topic, partition, log_offset, index_in_message, outcome, reason, detail, source, event_id, subject,
               event_type, occurred_at, log_time, content_digest, payload) FROM STDIN

-- name: insert_decisions
-- As copy_decisions.
INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, detail, source, event_id, subject,
                      event_type, occurred_at, log_time, content_digest, payload)
SELECT * FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[],
                     %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::bytea[], %s::bytea[])

-- name: settle_superseded
-- A valid event counted under an identity that was quarantined or parked somewhere, by whichever partition and in
-- whichever order: the earlier decision needs no more attention.
UPDATE decision d SET settled = true
FROM identity_epoch e
WHERE d.source = ANY(%(sources)s::text[]) AND d.outcome IN ('quarantined', 'parked') AND NOT d.settled
    AND e.source = d.source AND e.epoch = left(d.event_id, 16)
    AND e.counted @> CASE WHEN d.event_id ~ '^[0-9a-f]{16}-[0-9]{12}$' THEN right(d.event_id, 12)::bigint END

-- name: create_series
INSERT INTO series (meter_version_id, subject, source)
SELECT * FROM unnest(%(meter_version_ids)s::int[], %(subjects)s::text[], %(sources)s::text[]) AS k (m, s, o)
ORDER BY s, m, o
ON CONFLICT DO NOTHING

-- name: read_series
SELECT s.meter_version_id, s.subject, s.source, s.series_id
FROM series s
JOIN unnest(%(meter_version_ids)s::int[], %(subjects)s::text[], %(sources)s::text[]) AS k (m, sub, src)
    ON s.meter_version_id = k.m AND s.subject = k.sub AND s.source = k.src

-- name: create_streams
INSERT INTO sample_stream (source, subject, event_type)
SELECT * FROM unnest(%(sources)s::text[], %(subjects)s::text[], %(event_types)s::text[]) AS k (s, j, t)
ORDER BY s, j, t
ON CONFLICT DO NOTHING

-- name: read_streams
SELECT s.source, s.subject, s.event_type, s.sample_stream_id
FROM sample_stream s
JOIN unnest(%(sources)s::text[], %(subjects)s::text[], %(event_types)s::text[]) AS k (src, sub, typ)
    ON s.source = k.src AND s.subject = k.sub AND s.event_type = k.typ

-- name: read_neighbours
-- Stored samples around the stretch each stream's new samples change: from the last one before it to the end of the
-- slot of the first one after the newest sample.
SELECT n.sample_stream_id, s.occurred_at, s.epoch, s.number, s.readings::text, following.at
FROM unnest(%(streams)s::bigint[], %(from_at)s::timestamptz[], %(last_at)s::timestamptz[], %(reach_at)s::timestamptz[])
    AS n (sample_stream_id, from_at, last_at, reach_at)
CROSS JOIN LATERAL (
    SELECT max(occurred_at) AS at FROM usage_sample
    WHERE sample_stream_id = n.sample_stream_id AND occurred_at < n.from_at) AS preceding
CROSS JOIN LATERAL (
    SELECT min(occurred_at) AS at FROM usage_sample
    WHERE sample_stream_id = n.sample_stream_id AND occurred_at > n.last_at) AS following
JOIN usage_sample s ON s.sample_stream_id = n.sample_stream_id
    AND s.occurred_at >= coalesce(preceding.at, n.from_at)
    AND s.occurred_at < greatest(n.reach_at,
        coalesce(date_bin('15 minutes', following.at, 'epoch') + interval '15 minutes', n.reach_at))

-- name: copy_samples
COPY usage_sample (sample_stream_id, occurred_at, epoch, number, readings) FROM STDIN

-- name: insert_samples
-- As copy_samples: the same lines, of which COPY would undo the doubled backslashes.
INSERT INTO usage_sample (sample_stream_id, occurred_at, epoch, number, readings)
SELECT f[1]::bigint, f[2]::timestamptz, f[3], f[4]::bigint, replace(f[5], $$\\$$, $$\$$)::jsonb
FROM (SELECT string_to_array(line, chr(9)) AS f FROM unnest(%(lines)s::text[]) AS line) AS split

-- name: create_bucket_stage
CREATE TEMPORARY TABLE IF NOT EXISTS bucket_stage
    (series_id bigint, slot_start timestamptz, quantity numeric) ON COMMIT DELETE ROWS

-- name: empty_bucket_stage
TRUNCATE bucket_stage

-- name: copy_buckets
COPY bucket_stage (series_id, slot_start, quantity) FROM STDIN

-- name: insert_buckets
-- As copy_buckets.
INSERT INTO bucket_stage (series_id, slot_start, quantity)
SELECT f[1]::bigint, f[2]::timestamptz, f[3]::numeric
FROM (SELECT string_to_array(line, chr(9)) AS f FROM unnest(%(lines)s::text[]) AS line) AS split

-- name: replace_buckets
-- Slots recomputed from their samples; sorted, so that two workers lock rows in one order.
INSERT INTO usage_bucket AS b (series_id, slot_start, quantity)
SELECT series_id, slot_start, trim_scale(quantity) FROM bucket_stage ORDER BY series_id, slot_start
ON CONFLICT (series_id, slot_start) DO UPDATE SET quantity = excluded.quantity
WHERE b.quantity <> excluded.quantity

-- name: sum_days
-- Days of series with samples: one writer each (the source's home), so summing again is safe and exact.
INSERT INTO usage_day (series_id, day, quantity)
SELECT d.series_id, d.day, sum(b.quantity)
FROM unnest(%(series)s::bigint[], %(days)s::date[]) AS d (series_id, day)
JOIN usage_bucket b ON b.series_id = d.series_id
    AND b.slot_start >= d.day::timestamp AT TIME ZONE 'UTC' AND b.slot_start < (d.day + 1)::timestamp AT TIME ZONE 'UTC'
GROUP BY d.series_id, d.day
ORDER BY d.series_id, d.day
ON CONFLICT (series_id, day) DO UPDATE SET quantity = excluded.quantity

-- name: add_buckets
-- Order-free sums: several sources, so several workers, may add to one slot.
INSERT INTO usage_bucket AS b (series_id, slot_start, quantity)
SELECT series_id, slot_start, trim_scale(quantity) FROM bucket_stage ORDER BY series_id, slot_start
ON CONFLICT (series_id, slot_start) DO UPDATE SET quantity = trim_scale(b.quantity + excluded.quantity)

-- name: add_days
INSERT INTO usage_day AS d (series_id, day, quantity)
SELECT * FROM unnest(%(series)s::bigint[], %(days)s::date[], %(quantities)s::numeric[]) AS a (i, s, q)
ORDER BY i, s
ON CONFLICT (series_id, day) DO UPDATE SET quantity = trim_scale(d.quantity + excluded.quantity)

-- name: set_active
-- Slots in which a server was seen; once is enough.
INSERT INTO usage_bucket (series_id, slot_start, quantity)
SELECT series_id, slot_start, quantity FROM bucket_stage ORDER BY series_id, slot_start
ON CONFLICT (series_id, slot_start) DO NOTHING

-- name: add_dirty_marks
INSERT INTO dirty_mark (subject, meter, time_from, time_to)
SELECT * FROM unnest(%(subjects)s::text[], %(meters)s::text[], %(froms)s::timestamptz[], %(tos)s::timestamptz[])

-- name: read_catalogue_number
-- Which meters and ignore rules there are, and from when on slots may change: their newest known number.
SELECT greatest((SELECT max(known_number) FROM meter_version), (SELECT max(known_number) FROM ignore_rule),
    (SELECT max(known_number) FROM retention_edge), 0)

-- name: read_retention_edge
SELECT max(edge_at) FROM retention_edge

-- name: hold_catalogue
-- Meters and ignore rules stay as they are until the flush is committed; a fair lock, taken before any row.
SELECT pg_advisory_xact_lock_shared(hashtextextended('rackmeter:meters', 0))
