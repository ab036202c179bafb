-- Who may send usage over HTTP, and who may ask for it. The collector runs as rackmeter_collector: it reads tokens,
-- meters and usage, and writes nothing but when a token was last used. Tokens are made by the database's owner.

CREATE TABLE collector_token (
    token_id       text PRIMARY KEY,           -- the public half: names the token in lists and logs
    secret_digest  bytea NOT NULL,             -- sha256 of the other half: 256 random bits, so no salt is needed
    scope          text NOT NULL,
    source_prefix  text,                       -- of ingest: whose events it may send
    account_id     text REFERENCES billing_account,   -- of read: whose usage; null: everybody's
    note           text NOT NULL DEFAULT '',
    replaces       text UNIQUE REFERENCES collector_token,   -- the token it was rotated from
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL DEFAULT 'infinity',
    revoked_at     timestamptz,
    last_used_at   timestamptz,                -- to the hour
    CONSTRAINT collector_token_id_ck CHECK (token_id ~ '^[0-9a-f]{16}$'),
    CONSTRAINT collector_token_digest_ck CHECK (octet_length(secret_digest) = 32),
    CONSTRAINT collector_token_scope_ck CHECK (scope IN ('ingest', 'read')),
    CONSTRAINT collector_token_bound_ck CHECK (
        CASE scope WHEN 'ingest' THEN coalesce(source_prefix, '') <> '' AND account_id IS NULL
            ELSE source_prefix IS NULL END),
    CONSTRAINT collector_token_span_ck CHECK (expires_at > created_at)
);

-- A token is only ever ended: what it may do, and whose secret it is, never changes, nor does it come back.
CREATE FUNCTION keep_collector_token_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.token_id, NEW.secret_digest, NEW.scope, NEW.source_prefix, NEW.account_id, NEW.replaces, NEW.created_at)
        IS DISTINCT FROM
        (OLD.token_id, OLD.secret_digest, OLD.scope, OLD.source_prefix, OLD.account_id, OLD.replaces, OLD.created_at)
        OR NEW.expires_at > OLD.expires_at
        OR OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
        RAISE EXCEPTION 'token % is only ever ended; make another', OLD.token_id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER collector_token_only_ends BEFORE UPDATE ON collector_token
    FOR EACH ROW EXECUTE FUNCTION keep_collector_token_v1();
CREATE TRIGGER collector_token_kept BEFORE DELETE OR TRUNCATE ON collector_token
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rackmeter_collector') THEN
        CREATE ROLE rackmeter_collector NOLOGIN;
    END IF;
    EXECUTE format('GRANT rackmeter_collector TO %I', current_user);
END $$;
GRANT USAGE ON SCHEMA public TO rackmeter_collector;
GRANT SELECT, UPDATE (last_used_at) ON collector_token TO rackmeter_collector;
GRANT SELECT ON meter_version, ignore_rule, series, usage_bucket, assignment, subscription_span TO rackmeter_collector;
GRANT SELECT (account_id, time_zone) ON billing_account TO rackmeter_collector;
