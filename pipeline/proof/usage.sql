-- DuckDB statements: meters in whole numbers. quantity is in 10^-15 of the meter's unit, times in microseconds.

-- name: create_stream
-- Series of samples get a number, so that sorting them is cheap.
CREATE TABLE stream AS
SELECT row_number() OVER () AS stream_id, source, subject, event_type
FROM (SELECT DISTINCT source, subject, event_type FROM decided WHERE outcome = 'counted')

-- name: create_counted
CREATE TABLE counted AS
SELECT stream_id, event_type, at_us, event_id, nano, ordered_fields
FROM decided JOIN stream USING (source, subject, event_type) WHERE outcome = 'counted'

-- name: create_slot_usage
CREATE TABLE slot_usage (
    meter_version_id INTEGER, source VARCHAR, subject VARCHAR, slot_us BIGINT, quantity HUGEINT
)

-- name: add_time_weighted
-- A value holds to the next sample, at most the gap; of samples at one instant the last by id holds. What it holds is
-- cut at slot edges. All meters of one slot and gap at once: fields[i] is read by meters[i].
INSERT INTO slot_usage
WITH sample AS (
    SELECT stream_id, at_us, nano, lead(at_us) OVER (PARTITION BY stream_id ORDER BY at_us, event_id) AS next_us
    FROM counted WHERE event_type = $event_type AND list_has_all(ordered_fields, $fields)
), held AS (
    SELECT stream_id, nano, greatest(at_us, $from_us) AS begins_us,
        least(coalesce(next_us, at_us + $gap_us), at_us + $gap_us, $to_us) AS ends_us
    FROM sample
), piece AS (
    SELECT stream_id, nano, begins_us, ends_us,
        unnest(range(begins_us - begins_us % $slot_us, ends_us, $slot_us)) AS slot_us
    FROM held WHERE begins_us < ends_us
), meter_field AS (
    SELECT unnest($meters) AS meter_version_id, unnest($fields) AS field
), summed AS (
    SELECT meter_version_id, stream_id, slot_us,
        sum(nano[field] * (least(ends_us, slot_us + $slot_us) - greatest(begins_us, slot_us))) AS quantity
    FROM piece CROSS JOIN meter_field GROUP BY ALL
)
SELECT meter_version_id, source, subject, slot_us, quantity FROM summed JOIN stream USING (stream_id)

-- name: add_increase
-- The rise since the sample before, in the slot of the later one; a fall is a reset, the later value counts whole.
INSERT INTO slot_usage
WITH sample AS (
    SELECT stream_id, at_us, nano[$field] AS value,
        lag(nano[$field]) OVER (PARTITION BY stream_id ORDER BY at_us, event_id) AS before
    FROM counted WHERE event_type = $event_type AND list_contains(ordered_fields, $field)
), rise AS (
    SELECT stream_id, at_us - at_us % $slot_us AS slot_us,
        sum(CASE WHEN value >= before THEN value - before ELSE value END) * 1000000 AS quantity
    FROM sample WHERE before IS NOT NULL AND at_us >= $from_us AND at_us < $to_us GROUP BY ALL
)
SELECT $meter::INTEGER, source, subject, slot_us, quantity FROM rise JOIN stream USING (stream_id)

-- name: add_sum
INSERT INTO slot_usage
SELECT $meter::INTEGER, '', subject, at_us - at_us % $slot_us, sum(nano[$field]) * 1000000
FROM counted JOIN stream USING (stream_id)
WHERE counted.event_type = $event_type AND at_us >= $from_us AND at_us < $to_us GROUP BY ALL

-- name: add_active_hours
-- A slot is active if it has a sample.
INSERT INTO slot_usage
SELECT DISTINCT $meter::INTEGER, '', subject, at_us - at_us % $slot_us, 1000000000000000::HUGEINT
FROM counted JOIN stream USING (stream_id)
WHERE counted.event_type = $event_type AND at_us >= $from_us AND at_us < $to_us

-- name: other_buckets
-- Slots that differ, both ways; no row and a row of zero say the same. A quantity finer than 10^-15 is NULL: differs.
WITH stored AS (
    SELECT meter_version_id, source, subject, slot_us, quantity AS text,
        CASE WHEN length(split_part(quantity, '.', 2)) <= 15 OR trim(substr(split_part(quantity, '.', 2), 16), '0') = ''
            THEN CAST(split_part(quantity, '.', 1)
                || rpad(left(split_part(quantity, '.', 2), 15), 15, '0') AS HUGEINT) END AS quantity
    FROM bucket JOIN series USING (series_id)
)
SELECT meter.meter, coalesce(s.subject, u.subject) AS subject, coalesce(s.source, u.source),
    coalesce(s.slot_us, u.slot_us) AS slot_us, s.text, u.quantity::VARCHAR
FROM stored s FULL JOIN (SELECT * FROM slot_usage WHERE slot_us >= $kept_us) u
    ON u.meter_version_id = s.meter_version_id AND u.subject = s.subject AND u.source = s.source AND u.slot_us = s.slot_us
JOIN meter ON meter.meter_version_id = coalesce(s.meter_version_id, u.meter_version_id)
WHERE (s.text IS NOT NULL AND s.quantity IS NULL) OR coalesce(s.quantity, 0) <> coalesce(u.quantity, 0)
ORDER BY 1, 2, 3, 4

-- name: other_days
-- Sums of whole UTC days that differ, both ways, of meters whose slots add up.
WITH stored AS (
    SELECT meter_version_id, source, subject, day_us, quantity AS text,
        CASE WHEN length(split_part(quantity, '.', 2)) <= 15 OR trim(substr(split_part(quantity, '.', 2), 16), '0') = ''
            THEN CAST(split_part(quantity, '.', 1)
                || rpad(left(split_part(quantity, '.', 2), 15), 15, '0') AS HUGEINT) END AS quantity
    FROM day JOIN series USING (series_id)
), summed AS (
    SELECT meter_version_id, source, subject, slot_us - slot_us % 86400000000 AS day_us, sum(quantity) AS quantity
    FROM slot_usage JOIN meter USING (meter_version_id)
    WHERE aggregation <> 'active_hours' AND slot_us >= $from_us AND slot_us < $to_us GROUP BY ALL
)
SELECT meter.meter, coalesce(s.subject, u.subject) AS subject, coalesce(s.source, u.source),
    coalesce(s.day_us, u.day_us) AS day_us, s.text, u.quantity::VARCHAR
FROM stored s FULL JOIN summed u
    ON u.meter_version_id = s.meter_version_id AND u.subject = s.subject AND u.source = s.source AND u.day_us = s.day_us
JOIN meter ON meter.meter_version_id = coalesce(s.meter_version_id, u.meter_version_id)
WHERE (s.text IS NOT NULL AND s.quantity IS NULL) OR coalesce(s.quantity, 0) <> coalesce(u.quantity, 0)
ORDER BY 1, 2, 3, 4

-- name: day_count
SELECT count(*) FROM day

-- name: other_samples
-- Days of a server's samples that are not those of the counted events. What ordered meters read of an event is written as
-- PostgreSQL writes it, fields in its order; a day's rows are compared by their number and two sums of their digests.
WITH stored AS (
    SELECT source, subject, event_type, day_us, samples, first_sum, last_sum
    FROM sample_day JOIN sample_stream USING (sample_stream_id)
), written AS (
    SELECT stream_id, at_us // 86400000000 * 86400000000 AS day_us, md5(at_us || '|' || event_id || '|{' || array_to_string(
        list_transform(
            list_filter($places::INTEGER[], lambda place: list_contains(ordered_fields, place)),
            lambda place: ($labels::VARCHAR[])[place] || nano[place]), ', ') || '}') AS digest
    FROM counted WHERE len(ordered_fields) > 0 AND at_us >= $from_us AND at_us < $to_us
), counted_day AS (
    SELECT stream_id, day_us, count(*) AS samples, sum(('0x' || left(digest, 15))::BIGINT)::VARCHAR AS first_sum,
        sum(('0x' || right(digest, 15))::BIGINT)::VARCHAR AS last_sum
    FROM written GROUP BY 1, 2
), wanted AS (
    SELECT source, subject, event_type, day_us, samples, first_sum, last_sum FROM counted_day JOIN stream USING (stream_id)
)
SELECT coalesce(s.source, w.source), coalesce(s.subject, w.subject), coalesce(s.day_us, w.day_us), s.samples, w.samples
FROM stored s FULL JOIN wanted w
    ON w.source = s.source AND w.subject = s.subject AND w.event_type = s.event_type AND w.day_us = s.day_us
WHERE s.samples IS DISTINCT FROM w.samples OR s.first_sum <> w.first_sum OR s.last_sum <> w.last_sum
ORDER BY 1, 2, 3

-- name: sample_count
SELECT coalesce(sum(samples), 0)::BIGINT FROM sample_day

-- name: count_behind
SELECT count(*) FROM slot_usage WHERE slot_us < $kept_us

-- name: bucket_count
SELECT count(*) FROM bucket

-- name: add_up
-- Quantities of segments: a slot belongs to who owned the server at its start, at the price in force then.
SELECT s.segment_id, CASE WHEN s.per_subject THEN u.subject ELSE '' END AS billed_subject, sum(u.quantity)::VARCHAR
FROM slot_usage u
JOIN meter m USING (meter_version_id)
JOIN owner o ON o.subject = u.subject AND u.slot_us >= o.from_us AND u.slot_us < o.to_us
JOIN segment s ON s.subscription_id = o.subscription_id AND s.meter = m.meter
    AND u.slot_us >= s.from_us AND u.slot_us < s.to_us
WHERE m.aggregation <> 'active_hours'
GROUP BY 1, 2

-- name: add_up_hours
-- Hours are counted from the period's start; one belongs, with its price, to who owned the server at its start.
WITH period AS (
    SELECT DISTINCT period_from_us, period_to_us FROM segment
), hour AS (
    SELECT DISTINCT p.period_from_us, m.meter, u.subject,
        p.period_from_us + (u.slot_us - p.period_from_us) // 3600000000 * 3600000000 AS hour_us
    FROM slot_usage u
    JOIN meter m USING (meter_version_id)
    JOIN period p ON u.slot_us >= p.period_from_us AND u.slot_us < p.period_to_us
    WHERE m.aggregation = 'active_hours'
)
SELECT s.segment_id, CASE WHEN s.per_subject THEN h.subject ELSE '' END AS billed_subject,
    (count(*)::HUGEINT * 1000000000000000)::VARCHAR
FROM hour h
JOIN owner o ON o.subject = h.subject AND h.hour_us >= o.from_us AND h.hour_us < o.to_us
JOIN segment s ON s.subscription_id = o.subscription_id AND s.meter = h.meter
    AND s.period_from_us = h.period_from_us AND h.hour_us >= s.from_us AND h.hour_us < s.to_us
GROUP BY 1, 2

-- name: events_of_period
-- Counted events of each period's servers, for the report. Who held a stream when is found before its events are read.
WITH held AS MATERIALIZED (
    SELECT stream.stream_id, w.account_id, w.from_us AS period_from_us, greatest(o.from_us, w.from_us) AS from_us,
        least(o.to_us, w.to_us) AS to_us
    FROM stream JOIN owner o USING (subject)
    JOIN account_window w ON w.account_id = o.account_id AND o.from_us < w.to_us AND w.from_us < o.to_us
)
SELECT h.account_id, h.period_from_us, count(*)
FROM counted c JOIN held h ON h.stream_id = c.stream_id AND c.at_us >= h.from_us AND c.at_us < h.to_us
GROUP BY 1, 2
