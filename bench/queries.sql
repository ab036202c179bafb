-- name: checkpoint
-- So that each run begins with clean buffers, and pays for its own writes only.
CHECKPOINT

-- name: tally
-- What was decided about every event, and how far the log was read.
SELECT
    (SELECT sum(offset_next) FROM consumer_offset WHERE stage = 'aggregate'),
    sum(received), sum(counted), sum(duplicate), sum(quarantined), sum(parked), sum(ignored), sum(control)
FROM partition_tally

-- name: decisions
-- Rows kept about events that did not count.
SELECT outcome, count(*) FROM decision GROUP BY outcome

-- name: bucket_sums
-- All slots of each meter and server, in 10^-15 of the unit; with a fraction left, the text is no whole number.
SELECT m.meter, s.subject, trim_scale(sum(b.quantity) * 1000000000000000)::text
FROM usage_bucket b JOIN series s USING (series_id) JOIN meter_version m USING (meter_version_id)
GROUP BY m.meter, s.subject

-- name: day_sums
SELECT m.meter, s.subject, trim_scale(sum(d.quantity) * 1000000000000000)::text
FROM usage_day d JOIN series s USING (series_id) JOIN meter_version m USING (meter_version_id)
GROUP BY m.meter, s.subject

-- name: bucket_count
SELECT count(*) FROM usage_bucket
