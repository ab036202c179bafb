-- DuckDB statements of the settling of duplicates; `event` is a view of the partition's archived events.

-- name: open_duplicates
-- What is to be settled. is_lost: what was taken under this identity was never archived.
CREATE TABLE duplicate AS SELECT * FROM read_csv($path, header = false, delim = ',', quote = '"', auto_detect = false,
    columns = {'log_number': 'INTEGER', 'log_offset': 'BIGINT', 'index_in_message': 'INTEGER', 'source': 'VARCHAR',
    'event_id': 'VARCHAR', 'is_lost': 'BOOLEAN'})

-- name: extent
-- How many, and where the last one lies.
SELECT count(*), max(log_number), arg_max(log_offset, (log_number, log_offset)) FROM duplicate

-- name: find_candidates
-- Every event whose identity some duplicate has.
CREATE TEMP TABLE candidate AS SELECT event.* FROM event SEMI JOIN duplicate USING (source, event_id)

-- name: other_positions
-- Candidates that are no open duplicate themselves, as three PostgreSQL arrays: text is much faster than rows.
SELECT coalesce('{' || string_agg(log_number, ',' ORDER BY log_number, log_offset, index_in_message) || '}', '{}'),
    coalesce('{' || string_agg(log_offset, ',' ORDER BY log_number, log_offset, index_in_message) || '}', '{}'),
    coalesce('{' || string_agg(index_in_message, ',' ORDER BY log_number, log_offset, index_in_message) || '}', '{}')
FROM (
    SELECT log_number, log_offset, index_in_message FROM candidate
    ANTI JOIN duplicate USING (log_number, log_offset, index_in_message)
)

-- name: compare
-- Each duplicate beside the event that was taken: same bytes or not. A duplicate without a twin is not listed. Where
-- what was taken is lost, its first repeat stands for it, also to itself.
CREATE TABLE pair AS
SELECT d.log_number, d.log_offset, d.index_in_message, d.source, d.event_id, t.log_number AS twin_log,
    t.log_offset AS twin_offset, t.index_in_message AS twin_index, d_event.digest = t.digest AS same_bytes
FROM duplicate d
JOIN candidate d_event USING (log_number, log_offset, index_in_message)
JOIN (
    SELECT DISTINCT ON (c.source, c.event_id) c.*
    FROM candidate c
    LEFT JOIN duplicate o USING (log_number, log_offset, index_in_message)
    ANTI JOIN not_taken_rows USING (log_number, log_offset, index_in_message)
    WHERE o.source IS NULL OR o.is_lost
    ORDER BY c.source, c.event_id, log_number, log_offset, index_in_message
) t ON t.source = d.source AND t.event_id = d.event_id

-- name: same_bytes
-- How many, and where, as three PostgreSQL arrays.
SELECT count(*),
    coalesce('{' || string_agg(log_number, ',' ORDER BY log_number, log_offset, index_in_message) || '}', '{}'),
    coalesce('{' || string_agg(log_offset, ',' ORDER BY log_number, log_offset, index_in_message) || '}', '{}'),
    coalesce('{' || string_agg(index_in_message, ',' ORDER BY log_number, log_offset, index_in_message) || '}', '{}')
FROM pair WHERE same_bytes

-- name: other_bytes
SELECT log_number, log_offset, index_in_message, twin_log, twin_offset, twin_index
FROM pair WHERE NOT same_bytes ORDER BY ALL

-- name: stand_ins
-- Identities whose evidence is a repeat.
SELECT source, event_id FROM pair
WHERE log_number = twin_log AND log_offset = twin_offset AND index_in_message = twin_index ORDER BY ALL

-- name: repeats_of_lost
-- Archived events of the identity of a duplicate that was never archived.
SELECT event.log_number, event.log_offset, event.index_in_message, event.source, event.event_id
FROM event SEMI JOIN lost_rows USING (source, event_id)
