-- Chunks are compressed once their month has been closed and late events have become rare. A late one still counts.
ALTER TABLE usage_bucket SET (timescaledb.compress,
    timescaledb.compress_segmentby = 'series_id', timescaledb.compress_orderby = 'slot_start');
ALTER TABLE usage_sample SET (timescaledb.compress,
    timescaledb.compress_segmentby = 'sample_stream_id', timescaledb.compress_orderby = 'occurred_at, epoch, number');
SELECT add_compression_policy('usage_bucket', compress_after => interval '45 days');
SELECT add_compression_policy('usage_sample', compress_after => interval '45 days');
-- A flush of late events opens what it must: a limit would refuse it again at every start.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0', current_database());
END $$;
