-- name: has_migration_table
-- Whether this database was ever migrated.
SELECT to_regclass('public.schema_migration') IS NOT NULL

-- name: create_migration_table
CREATE TABLE IF NOT EXISTS schema_migration (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: applied_migrations
SELECT version, checksum FROM schema_migration ORDER BY version

-- name: record_migration
INSERT INTO schema_migration (version, name, checksum)
VALUES (%(version)s, %(name)s, %(checksum)s)

-- name: lock_migrations
-- Session lock: two migrating processes go one after the other.
SELECT pg_advisory_lock(hashtextextended('rackmeter:migrations', 0))

-- name: unlock_migrations
SELECT pg_advisory_unlock(hashtextextended('rackmeter:migrations', 0))
