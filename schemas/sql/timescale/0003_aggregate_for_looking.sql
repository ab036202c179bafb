-- The views of the plain schema as continuous aggregates, under the same names and columns. What they hold outlives the
-- slots they were made of, so nothing refreshes them behind the retention edge.
DROP VIEW usage_by_hour, usage_by_day, usage_by_month;

CREATE MATERIALIZED VIEW usage_by_hour WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT series_id, time_bucket('1 hour', slot_start) AS starts_at, sum(quantity) AS quantity, count(*) AS slots
FROM usage_bucket GROUP BY 1, 2
WITH NO DATA;

CREATE MATERIALIZED VIEW usage_by_day WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT series_id, time_bucket('1 day', starts_at) AS starts_at, sum(quantity) AS quantity, sum(slots)::bigint AS slots
FROM usage_by_hour GROUP BY 1, 2
WITH NO DATA;

CREATE MATERIALIZED VIEW usage_by_month WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT series_id, time_bucket('1 month', starts_at) AS starts_at, sum(quantity) AS quantity, sum(slots)::bigint AS slots
FROM usage_by_day GROUP BY 1, 2
WITH NO DATA;

SELECT add_continuous_aggregate_policy('usage_by_hour', start_offset => interval '45 days',
    end_offset => interval '1 hour', schedule_interval => interval '1 hour');
SELECT add_continuous_aggregate_policy('usage_by_day', start_offset => interval '45 days',
    end_offset => interval '1 day', schedule_interval => interval '6 hours');
SELECT add_continuous_aggregate_policy('usage_by_month', start_offset => interval '100 days',
    end_offset => interval '1 month', schedule_interval => interval '1 day');

GRANT SELECT ON usage_by_hour, usage_by_day, usage_by_month TO rackmeter_app;
