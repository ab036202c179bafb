-- name: watched
-- Counts for alerts, in one row. The age is of the oldest total whose current revision is not booked.
SELECT
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(t.computed_at)), 0)::float8
     FROM usage_total t LEFT JOIN booked_charge c USING (billed_item_id)
     WHERE (c.generation, c.revision) IS DISTINCT FROM (t.generation, t.revision)) AS oldest_unbooked_seconds,
    (SELECT count(*) FROM booked_charge WHERE outcome <> 'rated') AS unrated_charges,
    (SELECT count(DISTINCT (f.account_id, f.period_start)) FROM proof_failure f
     JOIN billing_period p USING (account_id, period_start) WHERE p.state <> 'closed') AS unproven_periods,
    (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM lost_number, unnest(numbers - found) AS r)
        AS events_without_evidence,
    (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint
     FROM identity_epoch, unnest(dropped - counted - quarantined - parked) AS r) AS events_declared_lost

-- name: open_decisions
SELECT outcome, count(*) AS count FROM decision
WHERE NOT settled AND outcome IN ('quarantined', 'parked', 'conflict', 'duplicate')
GROUP BY outcome

-- name: periods
SELECT state, count(*) AS count FROM billing_period GROUP BY state
