-- Statements of the archive stage and of the settling of duplicates.

-- name: log_of_topic
-- Which log the topic is, as it was adopted.
SELECT log_id::text, partition_count FROM log WHERE topic = %(topic)s

-- name: add_missing_offsets
-- A partition seen for the first time starts at 0.
INSERT INTO consumer_offset (stage, topic, partition, log_id, generation)
SELECT 'archive', %(topic)s, partition, %(log_id)s::uuid, installation.generation
FROM unnest(%(partitions)s::integer[]) AS partition, installation
ORDER BY partition
ON CONFLICT (stage, topic, partition) DO NOTHING

-- name: claim_offsets
-- Locks the rows and raises flush_number: whoever had these partitions before cannot commit any more.
WITH mine AS (
    SELECT partition FROM consumer_offset
    WHERE stage = 'archive' AND topic = %(topic)s AND partition = ANY (%(partitions)s::integer[])
    ORDER BY partition FOR UPDATE
)
UPDATE consumer_offset o SET flush_number = o.flush_number + 1, updated_at = now()
FROM mine
WHERE o.stage = 'archive' AND o.topic = %(topic)s AND o.partition = mine.partition
RETURNING o.partition, o.log_id::text, o.offset_next, o.flush_number, o.generation,
    (SELECT generation FROM installation) AS generation_now

-- name: lock_offsets
-- Lock order: offset rows by partition, first of all.
SELECT partition FROM consumer_offset
WHERE stage = 'archive' AND topic = %(topic)s AND partition = ANY (%(partitions)s::integer[])
ORDER BY partition FOR UPDATE

-- name: move_offsets
-- Compare and set: moves only rows that stand where this worker left them.
UPDATE consumer_offset o
SET offset_next = moved.offset_next, flush_number = o.flush_number + 1,
    log_time_max = greatest(o.log_time_max, 'epoch'::timestamptz + moved.log_time_us * interval '1 microsecond'),
    updated_at = now()
FROM unnest(%(partitions)s::integer[], %(offsets_before)s::bigint[], %(flush_numbers)s::bigint[],
    %(generations)s::integer[], %(offsets_next)s::bigint[], %(log_times_us)s::bigint[])
    AS moved (partition, offset_before, flush_number, generation, offset_next, log_time_us)
WHERE o.stage = 'archive' AND o.topic = %(topic)s AND o.log_id = %(log_id)s::uuid AND o.partition = moved.partition
    AND o.offset_next = moved.offset_before AND o.flush_number = moved.flush_number
    AND o.generation = moved.generation
    AND moved.generation = (SELECT generation FROM installation)

-- name: list_files
-- The manifest rows of one flush.
INSERT INTO archive_file
    (topic, log_id, partition, offset_first, offset_next, log_day, path, row_count, byte_count, digest)
SELECT %(topic)s, %(log_id)s::uuid, *
FROM unnest(%(partitions)s::integer[], %(offsets_first)s::bigint[], %(offsets_next)s::bigint[],
    %(log_days)s::date[], %(paths)s::text[], %(row_counts)s::bigint[], %(byte_counts)s::bigint[], %(digests)s::text[])

-- name: listed_paths
-- What exists of a partition.
SELECT path FROM archive_file
WHERE topic = %(topic)s AND log_id = %(log_id)s::uuid AND partition = %(partition)s

-- name: archived_offsets
-- How far the evidence reaches.
SELECT partition, offset_next FROM consumer_offset WHERE stage = 'archive' AND topic = %(topic)s ORDER BY partition

-- name: archived_files
-- What is archived of a partition, in the order it was read: log by log; and how far each log was decided about.
SELECT h.number, decided.offset_end, f.path
FROM log_history h
JOIN archive_file f ON f.topic = h.topic AND f.log_id = ANY (h.log_ids)
LEFT JOIN consumer_offset o ON o.stage = 'aggregate' AND o.topic = h.name AND o.partition = f.partition
CROSS JOIN LATERAL (
    -- The present log is decided about in order, and nothing lies before an event that is still to be read.
    SELECT CASE WHEN h.name = h.topic THEN 9223372036854775807 ELSE coalesce(o.offset_next, 0) END AS offset_end
) AS decided
WHERE h.topic = %(topic)s AND f.partition = %(partition)s AND f.offset_first < decided.offset_end
    AND (h.number, f.offset_first) <= (%(log_number)s, %(offset_last)s)
ORDER BY h.number, f.offset_first

-- name: unsettled_duplicates
-- Duplicates without a verdict whose bytes are archived; copied out, for they may be many.
COPY (
    SELECT h.number, d.log_offset, d.index_in_message, d.source, d.event_id, lost.log IS NOT NULL
    FROM log_history h
    JOIN decision d ON d.topic = h.name
    JOIN consumer_offset o ON o.stage = 'archive' AND o.topic = d.topic AND o.partition = d.partition
        AND d.log_offset < o.offset_next
    LEFT JOIN lost_number lost ON lost.source = d.source AND lost.epoch = left(d.event_id, 16)
        AND lost.numbers @> CASE WHEN d.event_id ~ '^.{16}-[0-9]{12}$' THEN right(d.event_id, 12)::bigint END
    WHERE h.topic = %(topic)s AND d.partition = %(partition)s AND d.outcome = 'duplicate' AND NOT d.settled
) TO STDOUT (FORMAT csv)

-- name: partitions_with_duplicates
-- Where there is anything to settle; reads the index of open decisions only.
SELECT DISTINCT d.partition
FROM log_history h JOIN decision d ON d.topic = h.name
WHERE h.topic = %(topic)s AND d.partition = ANY (%(partitions)s::integer[]) AND d.outcome = 'duplicate' AND NOT d.settled
ORDER BY d.partition

-- name: lost_duplicates
-- Duplicates without a verdict whose bytes were lost with their log before they were archived.
SELECT h.number, d.log_offset, d.index_in_message, d.source, d.event_id, d.content_digest
FROM log_history h
JOIN decision d ON d.topic = h.name
LEFT JOIN consumer_offset o ON o.stage = 'archive' AND o.topic = d.topic AND o.partition = d.partition
WHERE h.topic = %(topic)s AND h.name <> h.topic AND d.partition = %(partition)s AND d.outcome = 'duplicate'
    AND NOT d.settled AND d.log_offset >= coalesce(o.offset_next, 0)

-- name: not_taken
-- Which of these positions hold something else than a counted, control or ignored event, or the repeat of a lost one.
SELECT asked.log_number, asked.log_offset, asked.index_in_message
FROM unnest(%(log_numbers)s::integer[], %(log_offsets)s::bigint[], %(indexes)s::integer[])
    AS asked (log_number, log_offset, index_in_message)
JOIN log_history h ON h.topic = %(topic)s AND h.number = asked.log_number
JOIN decision d ON d.topic = h.name AND d.partition = %(partition)s AND d.log_offset = asked.log_offset
    AND (d.index_in_message = asked.index_in_message OR d.index_in_message = -1)
WHERE d.outcome NOT IN ('counted', 'control', 'ignored')
    AND (d.outcome <> 'duplicate' OR NOT EXISTS (
        SELECT FROM lost_number lost WHERE lost.source = d.source AND lost.epoch = left(d.event_id, 16)
            AND lost.numbers @> CASE WHEN d.event_id ~ '^.{16}-[0-9]{12}$' THEN right(d.event_id, 12)::bigint END))

-- name: lock_settling
-- Held to the commit: a close settles too, and two passes that update the same rows in different orders would deadlock.
SELECT pg_advisory_xact_lock(hashtextextended('settle ' || %(topic)s || ' ' || %(partition)s::text, 0))

-- name: settle_duplicates
-- The verdict "the same content", once.
UPDATE decision d SET settled = true
FROM unnest(%(log_numbers)s::integer[], %(log_offsets)s::bigint[], %(indexes)s::integer[])
    AS same (log_number, log_offset, index_in_message)
JOIN log_history h ON h.topic = %(topic)s AND h.number = same.log_number
WHERE d.topic = h.name AND d.partition = %(partition)s AND d.log_offset = same.log_offset
    AND d.index_in_message = same.index_in_message AND d.outcome = 'duplicate' AND NOT d.settled

-- name: add_found
-- Lost numbers that the archive has now.
UPDATE lost_number lost SET found = lost.found + lost.numbers * seen.numbers
FROM (
    SELECT source, left(event_id, 16) AS epoch, range_agg(int8range(number, number, '[]')) AS numbers
    FROM unnest(%(sources)s::text[], %(event_ids)s::text[]) AS f (source, event_id),
        LATERAL (SELECT right(event_id, 12)::bigint AS number) AS n
    GROUP BY 1, 2
) AS seen
WHERE lost.source = seen.source AND lost.epoch = seen.epoch AND lost.numbers && seen.numbers

-- name: mark_conflicts
-- The verdict "other content": stays open, holds the close; the tally moves in the same statement.
WITH changed AS (
    UPDATE decision d SET outcome = 'conflict', reason = 'content_differs', detail = other.detail
    FROM unnest(%(log_numbers)s::integer[], %(log_offsets)s::bigint[], %(indexes)s::integer[], %(details)s::text[])
        AS other (log_number, log_offset, index_in_message, detail)
    JOIN log_history h ON h.topic = %(topic)s AND h.number = other.log_number
    WHERE d.topic = h.name AND d.partition = %(partition)s AND d.log_offset = other.log_offset
        AND d.index_in_message = other.index_in_message AND d.outcome = 'duplicate' AND NOT d.settled
    RETURNING d.topic, d.partition
), counted AS (
    SELECT topic, partition, count(*) AS moved FROM changed GROUP BY topic, partition
)
UPDATE partition_tally t SET duplicate = t.duplicate - counted.moved, conflict = t.conflict + counted.moved
FROM counted WHERE t.topic = counted.topic AND t.partition = counted.partition

-- name: partitions_behind
-- Where the archive has less than was decided about.
SELECT d.partition
FROM consumer_offset d
LEFT JOIN consumer_offset a ON a.stage = 'archive' AND a.topic = d.topic AND a.partition = d.partition
WHERE d.stage = 'aggregate' AND d.topic = %(topic)s AND d.offset_next > coalesce(a.offset_next, d.offset_first)
ORDER BY d.partition

-- name: not_taken_of_partition
-- Every position of something else than a counted, control or ignored event.
COPY (
    SELECT h.number, d.log_offset, d.index_in_message
    FROM log_history h JOIN decision d ON d.topic = h.name
    WHERE h.topic = %(topic)s AND d.partition = %(partition)s AND d.outcome NOT IN ('counted', 'control', 'ignored')
) TO STDOUT (FORMAT csv)

-- name: numbers_without_evidence
-- What was counted, less what the archive has of it and what was known to be lost before.
SELECT e.source, e.epoch, rest.numbers::text, (SELECT sum(upper(r) - lower(r)) FROM unnest(rest.numbers) AS r)::bigint
FROM identity_epoch e
LEFT JOIN unnest(%(sources)s::text[], %(epochs)s::text[], %(numbers)s::text[]::int8multirange[])
    AS archived (source, epoch, numbers) USING (source, epoch)
LEFT JOIN (SELECT source, epoch, range_agg(numbers) AS numbers FROM lost_number GROUP BY source, epoch) AS lost
    USING (source, epoch)
CROSS JOIN LATERAL (
    SELECT e.counted - coalesce(archived.numbers, '{}') - coalesce(lost.numbers, '{}') AS numbers
) AS rest
WHERE e.partition = %(partition)s AND NOT isempty(rest.numbers)
ORDER BY e.source COLLATE "C", e.epoch
