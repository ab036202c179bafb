-- DuckDB statements of the settling of duplicates; `message` is a view of the partition's archive files.

-- name: open_duplicates
-- What is to be settled. Positions of one partition.
CREATE TABLE duplicate AS SELECT * FROM read_csv($path, header = false, delim = ',', quote = '"', auto_detect = false,
    columns = {'log_offset': 'BIGINT', 'index_in_message': 'INTEGER', 'source': 'VARCHAR', 'event_id': 'VARCHAR'})

-- name: extent
SELECT count(*), max(log_offset) FROM duplicate

-- name: open_messages
-- The partition's files, read where they lie.
CREATE TEMP VIEW message AS
SELECT log_offset, value, try(decode(value)) AS text FROM read_parquet($paths) WHERE value IS NOT NULL

-- name: array_messages
-- Messages with several events, taken apart in Python because DuckDB's JSON rewrites numbers.
SELECT log_offset, value FROM message WHERE ltrim(text, E' \t\r\n') LIKE '[%'

-- name: find_candidates
-- Every event whose identity some duplicate has, with a digest of its bytes.
CREATE TEMP TABLE candidate AS
WITH event AS (
    SELECT log_offset, 0 AS index_in_message,
        try(json_extract_string(text, '$.source')) AS source, try(json_extract_string(text, '$.id')) AS event_id,
        md5(value) AS digest
    FROM message WHERE ltrim(text, E' \t\r\n') LIKE '{%'
    UNION ALL
    SELECT log_offset, index_in_message, source, event_id, md5(value) FROM slice_rows
)
SELECT event.* FROM event SEMI JOIN duplicate USING (source, event_id)

-- name: other_positions
-- Candidates that are no open duplicate themselves, as two PostgreSQL arrays: text is much faster than rows.
SELECT coalesce('{' || string_agg(log_offset, ',' ORDER BY log_offset, index_in_message) || '}', '{}'),
    coalesce('{' || string_agg(index_in_message, ',' ORDER BY log_offset, index_in_message) || '}', '{}')
FROM (SELECT log_offset, index_in_message FROM candidate ANTI JOIN duplicate USING (log_offset, index_in_message))

-- name: compare
-- Each duplicate beside the event that was taken: same bytes or not. A duplicate without a twin is not listed.
CREATE TABLE pair AS
SELECT d.log_offset, d.index_in_message, t.log_offset AS twin_offset, t.index_in_message AS twin_index,
    d_event.digest = t.digest AS same_bytes
FROM duplicate d
JOIN candidate d_event USING (log_offset, index_in_message)
JOIN (
    SELECT c.source, c.event_id, min_by(c.log_offset, (c.log_offset, c.index_in_message)) AS log_offset,
        min_by(c.index_in_message, (c.log_offset, c.index_in_message)) AS index_in_message,
        min_by(c.digest, (c.log_offset, c.index_in_message)) AS digest
    FROM candidate c
    ANTI JOIN duplicate USING (log_offset, index_in_message)
    ANTI JOIN not_taken_rows USING (log_offset, index_in_message)
    GROUP BY c.source, c.event_id
) t ON t.source = d.source AND t.event_id = d.event_id

-- name: same_bytes
-- How many, and where, as two PostgreSQL arrays.
SELECT count(*), coalesce('{' || string_agg(log_offset, ',' ORDER BY log_offset, index_in_message) || '}', '{}'),
    coalesce('{' || string_agg(index_in_message, ',' ORDER BY log_offset, index_in_message) || '}', '{}')
FROM pair WHERE same_bytes

-- name: other_bytes
SELECT log_offset, index_in_message, twin_offset, twin_index FROM pair WHERE NOT same_bytes ORDER BY ALL

-- name: values_at
-- Whole messages at some offsets.
SELECT log_offset, value FROM message SEMI JOIN offset_rows USING (log_offset)
