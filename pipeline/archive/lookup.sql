-- DuckDB statements: looking single events up in the archive.

-- name: find_events
-- Events by identity, or by what and when; the same event stands there as often as it was sent.
WITH apart AS (
    SELECT log_number, log_offset, 0 AS index_in_message, text FROM message
    WHERE json_valid(text) AND ltrim(text, E' \t\r\n') LIKE '{%'
    UNION ALL
    SELECT log_number, log_offset, generate_subscripts(texts, 1) - 1, unnest(texts)
    FROM (
        SELECT log_number, log_offset, json_extract(text, '$[*]')::VARCHAR[] AS texts FROM message
        WHERE json_valid(text) AND ltrim(text, E' \t\r\n') LIKE '[%'
    )
), named AS (
    SELECT log_number, log_offset, index_in_message, json_extract_string(text, '$.source') AS source,
        json_extract_string(text, '$.id') AS event_id, json_extract_string(text, '$.type') AS event_type,
        json_extract_string(text, '$.subject') AS subject, json_extract_string(text, '$.time') AS time,
        json_extract(text, '$.data')::VARCHAR AS data
    FROM apart
)
SELECT log_number, log_offset, index_in_message, source, event_id, event_type, subject, time, data FROM named
WHERE list_contains($sources, source) AND ($event_id IS NULL OR event_id = $event_id)
    AND ($subject IS NULL OR subject = $subject AND event_type = $event_type
        AND epoch_us(try_cast(time AS TIMESTAMPTZ)) BETWEEN $from_us AND $to_us - 1)
ORDER BY log_number, log_offset, index_in_message
