-- DuckDB statements: messages taken apart and judged. One row of `event` an event.

-- name: create_event
-- nano: values of the fields asked for in 10^-9, NULL where there is no good one; fault: why it is not well-formed.
CREATE TABLE event (
    partition INTEGER, log_offset BIGINT, index_in_message INTEGER, events_in_message INTEGER, log_time_us BIGINT,
    key_is_source BOOLEAN,
    source VARCHAR, event_id VARCHAR, event_type VARCHAR, subject VARCHAR, at_us BIGINT, nano HUGEINT[], fault VARCHAR,
    stamped BOOLEAN
)

-- name: read_files
-- Files of one log, read where they lie; its partitions are numbered on after those of the logs before it.
SELECT partition + $shift AS partition, log_offset, log_time, key, value FROM read_parquet($paths)

-- name: create_archived
CREATE VIEW archived AS $pieces

-- name: create_message
-- Messages below the cut, with the running maximum of the log's own time.
CREATE VIEW message AS
SELECT partition, log_offset, key, value, log_time_us FROM archived JOIN log_clock USING (partition, log_offset)

-- name: create_log_clock
-- By itself, so that sorting does not carry messages along.
CREATE TABLE log_clock AS
SELECT partition, log_offset, max(epoch_us(log_time)) OVER (PARTITION BY partition ORDER BY log_offset) AS log_time_us
FROM archived JOIN cut_offset USING (partition)
WHERE log_offset < cut_offset.offset_next

-- name: read_plain
-- Events of the plain shape, alone or in an array: printable ASCII, nothing escaped, `data` of numbers that a double
-- holds exactly (at most 15 digits), times in Z, no stamp, no member twice. Everything about them can be judged in SQL.
INSERT INTO event
WITH shaped AS (
    -- The case keeps JSON functions away from what is no JSON, in whatever order filters run.
    SELECT partition, log_offset, log_time_us, key,
        CASE WHEN regexp_full_match(try(decode(value)), $plain) THEN [decode(value)]
            WHEN regexp_full_match(try(decode(value)), $plain_array) AND json_valid(decode(value))
            THEN json_extract(decode(value), '$[*]')::VARCHAR[] END AS texts
    FROM message
), apart AS (
    SELECT partition, log_offset, log_time_us, key, unnest(texts) AS text,
        generate_subscripts(texts, 1) - 1 AS index_in_message, len(texts) AS events_in_message
    FROM shaped WHERE len(texts) <= $events_max
), named AS (
    SELECT partition, log_offset, index_in_message, events_in_message, log_time_us, key,
        json_extract_string(text, ['$.specversion', '$.source', '$.id', '$.type', '$.subject', '$.time']) AS name,
        json_extract_string(text, $field_paths) AS value, json_keys(text) AS members,
        json_keys(text, '$.data') AS data_members
    FROM apart
), timed AS (
    SELECT *, epoch_us(try_cast(rtrim(name[6], 'Z') AS TIMESTAMP)) AS at_us FROM named
    WHERE name[1] = '1.0' AND regexp_full_match(name[6], $plain_time)
        AND length(name[2]) BETWEEN 1 AND 256 AND length(name[3]) BETWEEN 1 AND 256
        AND length(name[4]) BETWEEN 1 AND 256 AND length(name[5]) BETWEEN 1 AND 256
        AND NOT starts_with(name[4], 'rackmeter.control.')
        AND len(list_filter(name, lambda n: starts_with(n, '{'))) = 0
        AND NOT list_contains(members, $stamp)
        AND len(members) = len(list_distinct(members)) AND len(data_members) = len(list_distinct(data_members))
)
SELECT partition, log_offset, index_in_message, events_in_message, log_time_us, coalesce(key = encode(name[2]), false),
    name[2], name[3], name[4], name[5], at_us,
    list_transform(value, lambda v: CAST(CAST(v AS DECIMAL(27, 9)) * 1000000000::DECIMAL(10, 0) AS HUGEINT)), NULL,
    false
FROM timed WHERE at_us >= 0

-- name: drop_half_read
-- A message is read here as a whole or not at all.
DELETE FROM event WHERE (partition, log_offset) IN (
    SELECT (partition, log_offset) FROM event GROUP BY partition, log_offset
    HAVING count(*) <> any_value(events_in_message)
)

-- name: not_plain
-- What is left for `judge`.
SELECT partition, log_offset, log_time_us, key, value FROM message ANTI JOIN event USING (partition, log_offset)

-- name: add_judged
INSERT INTO event
SELECT partition, log_offset, index_in_message, NULL, log_time_us, key_is_source, source, event_id, event_type, subject,
    at_us, CAST(nano AS HUGEINT[]), fault, stamped
FROM judged

-- name: drop_event
DROP TABLE event

-- name: rows_twice
-- Positions the archive holds more than once.
SELECT partition, log_offset, count(*) FROM log_clock GROUP BY partition, log_offset HAVING count(*) > 1 ORDER BY ALL

-- name: sources
SELECT DISTINCT source FROM event WHERE source IS NOT NULL

-- name: create_verdict
-- What follows from an event by itself, whatever came before it. Identity is looked at afterwards.
-- need: (event type, times a set of meters is in force, their fields); home: source -> partition of a log.
CREATE TABLE verdict AS
SELECT event.partition, log_offset, index_in_message, event.source, event_id, event.event_type, subject, at_us, nano, stamped,
    CASE
        WHEN fault IS NOT NULL OR NOT key_is_source THEN 'quarantined'
        WHEN home.partition <> event.partition % $partition_count THEN 'parked'
        WHEN NOT regexp_full_match(event_id, '[0-9a-f]{16}-[0-9]{12}') OR event_id LIKE '%-000000000000' THEN 'parked'
        WHEN at_us > log_time_us + 300000000 THEN 'quarantined'
        WHEN starts_with(event.event_type, 'rackmeter.control.') THEN 'control'
        WHEN ignored.event_type IS NOT NULL THEN 'ignored'
        WHEN need.fields IS NULL THEN 'parked'
        WHEN list_count(list_select(nano, need.fields)) < len(need.fields) THEN 'quarantined'
        ELSE 'counted'
    END AS expected,
    need.ordered_fields,
    ignored.event_type IS NOT NULL AND need.fields IS NOT NULL
        AND list_count(list_select(nano, need.fields)) = len(need.fields) AS countable
FROM event
LEFT JOIN home ON home.source = event.source
LEFT JOIN ignored ON ignored.event_type = event.event_type
LEFT JOIN need ON need.event_type = event.event_type AND at_us >= need.from_us AND at_us < need.to_us
