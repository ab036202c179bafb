-- Slots and samples in chunks of seven days (docs/decisions/0019): dropped whole, compressed whole.
-- The primary keys begin with the series, which is how they are read; an index on the time alone would only cost.
SELECT create_hypertable('usage_bucket', by_range('slot_start', interval '7 days'),
    create_default_indexes => false, migrate_data => true);
SELECT create_hypertable('usage_sample', by_range('occurred_at', interval '7 days'),
    create_default_indexes => false, migrate_data => true);
