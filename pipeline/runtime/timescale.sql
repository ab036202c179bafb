-- name: timescale_offer
-- What the server has of TimescaleDB; no row on plain PostgreSQL. The licence is known once the library is loaded.
SELECT installed_version,
    'timescaledb' = ANY (string_to_array(replace(current_setting('shared_preload_libraries'), ' ', ''), ',')),
    coalesce(current_setting('timescaledb.license', true), '')
FROM pg_available_extensions WHERE name = 'timescaledb'

-- name: create_timescale
CREATE EXTENSION IF NOT EXISTS timescaledb

-- name: has_usage_tables
SELECT to_regclass('public.usage_bucket') IS NOT NULL

-- name: has_usage
-- Whether converting the tables means moving rows.
SELECT EXISTS (SELECT FROM usage_bucket) OR EXISTS (SELECT FROM usage_sample)

-- name: has_timescale_table
SELECT to_regclass('public.timescale_migration') IS NOT NULL

-- name: create_timescale_table
CREATE TABLE IF NOT EXISTS timescale_migration (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: applied_timescale
SELECT version, checksum FROM timescale_migration ORDER BY version

-- name: record_timescale
INSERT INTO timescale_migration (version, name, checksum)
VALUES (%(version)s, %(name)s, %(checksum)s)
