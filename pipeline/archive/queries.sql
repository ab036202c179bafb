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

-- name: unsettled_duplicates
-- Duplicates without a verdict whose bytes are archived; copied out, for they may be many.
COPY (
    SELECT d.log_offset, d.index_in_message, d.source, d.event_id
    FROM decision d
    JOIN consumer_offset o ON o.stage = 'archive' AND o.topic = d.topic AND o.partition = d.partition
        AND d.log_offset < o.offset_next
    WHERE d.topic = %(topic)s AND d.partition = %(partition)s AND d.outcome = 'duplicate' AND NOT d.settled
) TO STDOUT (FORMAT csv)

-- name: partitions_with_duplicates
-- Where there is anything to settle; reads the index of open decisions only.
SELECT DISTINCT partition FROM decision
WHERE topic = %(topic)s AND partition = ANY (%(partitions)s::integer[]) AND outcome = 'duplicate' AND NOT settled
ORDER BY partition

-- name: files_to_read
-- Files a twin may lie in: a twin was counted before its duplicate, by the same home.
SELECT f.path FROM archive_file f
JOIN log ON log.topic = f.topic AND log.log_id = f.log_id
WHERE f.topic = %(topic)s AND f.partition = %(partition)s AND f.offset_first <= %(offset_last)s
ORDER BY f.offset_first

-- name: not_taken
-- Which of these positions hold something else than a counted, control or ignored event.
SELECT d.log_offset, d.index_in_message
FROM unnest(%(log_offsets)s::bigint[], %(indexes)s::integer[]) AS asked (log_offset, index_in_message)
JOIN decision d ON d.topic = %(topic)s AND d.partition = %(partition)s AND d.log_offset = asked.log_offset
    AND (d.index_in_message = asked.index_in_message OR d.index_in_message = -1)
    AND d.outcome NOT IN ('control', 'ignored')

-- name: settle_duplicates
-- The verdict "the same content", once.
UPDATE decision d SET settled = true
FROM unnest(%(log_offsets)s::bigint[], %(indexes)s::integer[]) AS same (log_offset, index_in_message)
WHERE d.topic = %(topic)s AND d.partition = %(partition)s AND d.log_offset = same.log_offset
    AND d.index_in_message = same.index_in_message AND d.outcome = 'duplicate' AND NOT d.settled

-- name: mark_conflicts
-- The verdict "other content": stays open, holds the close; the tally moves in the same statement.
WITH changed AS (
    UPDATE decision d SET outcome = 'conflict', reason = 'content_differs', detail = other.detail
    FROM unnest(%(log_offsets)s::bigint[], %(indexes)s::integer[], %(details)s::text[])
        AS other (log_offset, index_in_message, detail)
    WHERE d.topic = %(topic)s AND d.partition = %(partition)s AND d.log_offset = other.log_offset
        AND d.index_in_message = other.index_in_message AND d.outcome = 'duplicate' AND NOT d.settled
    RETURNING d.partition
), counted AS (
    SELECT partition, count(*) AS moved FROM changed GROUP BY partition
)
UPDATE partition_tally t SET duplicate = t.duplicate - counted.moved, conflict = t.conflict + counted.moved
FROM counted WHERE t.topic = %(topic)s AND t.partition = counted.partition
