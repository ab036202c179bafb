-- DuckDB statements: the archived events of one partition, over all the logs its topic has been.

-- name: read_files
-- Files of one log, read where they lie, as far as the log was decided about.
SELECT $number AS log_number, log_offset, key, value, try(decode(value)) AS text
FROM read_parquet($paths) WHERE value IS NOT NULL AND log_offset < $offset_end

-- name: open_messages
CREATE TEMP VIEW message AS $pieces

-- name: array_messages
-- Messages with several events, taken apart in Python because DuckDB's JSON rewrites numbers.
SELECT log_number, log_offset, value FROM message WHERE ltrim(text, E' \t\r\n') LIKE '[%'

-- name: open_events
-- Every event with its identity, where it can be read, and a digest of its bytes.
CREATE TEMP VIEW event AS
SELECT log_number, log_offset, 0 AS index_in_message, try(json_extract_string(text, '$.source')) AS source,
    try(json_extract_string(text, '$.id')) AS event_id, md5(value) AS digest
FROM message WHERE ltrim(text, E' \t\r\n') LIKE '{%'
UNION ALL
SELECT log_number, log_offset, index_in_message, source, event_id, md5(value) FROM slice_rows

-- name: messages_of_source
-- By the key, which is the source of every event that counts: nothing has to be taken apart to find them.
SELECT log_number, log_offset, value FROM message WHERE key = encode($source) ORDER BY log_number, log_offset

-- name: values_at
-- Whole messages at some positions.
SELECT log_number, log_offset, value FROM message SEMI JOIN place_rows USING (log_number, log_offset)
