-- DuckDB statements: which numbers of a partition's sources the archive has.

-- name: open_not_taken
CREATE TABLE not_taken AS SELECT * FROM read_csv($path, header = false, delim = ',', auto_detect = false,
    columns = {'log_number': 'INTEGER', 'log_offset': 'BIGINT', 'index_in_message': 'INTEGER'})

-- name: archived_numbers
-- Of every source and epoch, as a PostgreSQL multirange.
WITH taken AS (
    SELECT DISTINCT source, left(event_id, 16) AS epoch, CAST(right(event_id, 12) AS BIGINT) AS number
    FROM event ANTI JOIN not_taken USING (log_number, log_offset, index_in_message)
    WHERE source IS NOT NULL AND regexp_full_match(event_id, '[0-9a-f]{16}-[0-9]{12}')
), run AS (
    SELECT *, number - row_number() OVER (PARTITION BY source, epoch ORDER BY number) AS run FROM taken
), span AS (
    SELECT source, epoch, min(number) AS first, max(number) + 1 AS after FROM run GROUP BY source, epoch, run
)
SELECT source, epoch, '{' || string_agg('[' || first || ',' || after || ')', ',' ORDER BY first) || '}'
FROM span GROUP BY source, epoch
