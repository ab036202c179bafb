-- What is sold, to whom, and who has which server. Versions are added, never edited.

-- Numbers that say what was known when. Taken under a lock held to the commit: a lower number is never seen later.
CREATE TABLE known_number (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last     bigint NOT NULL DEFAULT 0
);
INSERT INTO known_number DEFAULT VALUES;

CREATE TABLE catalogue_version (
    known_number bigint PRIMARY KEY,
    digest       text NOT NULL,                -- sha256 of the canonical document
    document     text NOT NULL,                -- the YAML as applied
    applied_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE meter_version (
    meter_version_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter            text NOT NULL,
    version          integer NOT NULL,
    event_type       text NOT NULL,
    aggregation      text NOT NULL,
    value_field      text,                     -- top-level member of data; null where the aggregation takes none
    unit             text NOT NULL,            -- of the quantity, e.g. KiB-second
    slot_seconds     integer NOT NULL,
    gap_seconds_max  integer,                  -- how long a gauge holds without a sample
    effective_from   timestamptz NOT NULL,
    known_number     bigint NOT NULL,
    UNIQUE (meter, version),
    CONSTRAINT meter_version_aggregation_ck CHECK (aggregation IN ('sum', 'time_weighted', 'increase', 'active_hours')),
    CONSTRAINT meter_version_slot_ck CHECK (slot_seconds > 0 AND 900 % slot_seconds = 0),
    CONSTRAINT meter_version_value_ck CHECK ((aggregation = 'active_hours') = (value_field IS NULL)),
    CONSTRAINT meter_version_gap_ck CHECK ((aggregation = 'time_weighted') = (gap_seconds_max IS NOT NULL))
);

CREATE TABLE ignore_rule (
    event_type   text PRIMARY KEY,
    known_number bigint NOT NULL
);

CREATE TABLE price_version (
    price_version_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    price            text NOT NULL,
    version          integer NOT NULL,
    model            text NOT NULL,
    product          text NOT NULL,
    currency         text NOT NULL,
    unit             text NOT NULL,            -- that the price is quoted in, e.g. GiB-hour
    base_units       numeric NOT NULL,         -- how many of the meter's units make one
    parameters       jsonb NOT NULL,           -- of the model; decimals as strings
    digest           text NOT NULL,            -- sha256 over all of the above, canonical
    known_number     bigint NOT NULL,
    UNIQUE (price, version),
    CONSTRAINT price_version_base_units_ck CHECK (base_units > 0),
    CONSTRAINT price_version_currency_ck CHECK (currency ~ '^[A-Z]{3}$')
);

CREATE TABLE billing_account (
    account_id     text PRIMARY KEY,
    name           text NOT NULL,
    address        text[] NOT NULL DEFAULT '{}',
    currency       text NOT NULL,
    time_zone      text NOT NULL,
    seller         text NOT NULL,
    gate_policy    text NOT NULL DEFAULT 'hold',
    payment_gateway text NOT NULL DEFAULT 'manual',
    payment_terms_days integer NOT NULL DEFAULT 14,
    known_number   bigint NOT NULL,
    CONSTRAINT billing_account_policy_ck CHECK (gate_policy IN ('hold'))
);

CREATE TABLE seller (
    seller        text PRIMARY KEY,            -- legal entity
    name          text NOT NULL,
    address       text[] NOT NULL DEFAULT '{}',
    tax_id        text NOT NULL DEFAULT '',
    bank_account  text NOT NULL DEFAULT '',
    number_prefix text NOT NULL UNIQUE,        -- two sellers with one would give one number twice
    time_zone     text NOT NULL,
    known_number  bigint NOT NULL
);

CREATE TABLE subscription (
    subscription_id text PRIMARY KEY,
    account_id      text NOT NULL REFERENCES billing_account,
    plan            text NOT NULL,
    starts_at       timestamptz NOT NULL,
    known_number    bigint NOT NULL
);

-- When a subscription ends, as it became known; the latest word holds. What was issued is proven by the word of its time.
CREATE TABLE subscription_end (
    known_number    bigint NOT NULL,
    subscription_id text NOT NULL REFERENCES subscription,
    ends_at         timestamptz,               -- null: no end any more
    PRIMARY KEY (subscription_id, known_number)
);

CREATE VIEW subscription_span AS
SELECT s.subscription_id, s.account_id, s.plan, s.starts_at, (
        SELECT e.ends_at FROM subscription_end e
        WHERE e.subscription_id = s.subscription_id ORDER BY e.known_number DESC LIMIT 1
    ) AS ends_at,                              -- null: no end is known
    s.known_number
FROM subscription s;

CREATE FUNCTION check_subscription_end_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.ends_at <= (SELECT starts_at FROM subscription WHERE subscription_id = NEW.subscription_id) THEN
        RAISE EXCEPTION 'subscription % ends at %, not after it starts', NEW.subscription_id, NEW.ends_at
            USING ERRCODE = 'check_violation', CONSTRAINT = 'subscription_end_span_ck';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER subscription_end_span BEFORE INSERT ON subscription_end
    FOR EACH ROW EXECUTE FUNCTION check_subscription_end_v1();

-- What a subscription is charged for: a meter at a price, from a time on. Later known rows win over earlier ones.
-- Made by `catalogue apply` from plans and contract prices, so no stage needs to know what a plan is.
CREATE TABLE price_binding (
    known_number     bigint NOT NULL,
    subscription_id  text NOT NULL REFERENCES subscription,
    item             text NOT NULL,            -- the plan's item, e.g. cpu
    meter            text NOT NULL,
    price_version_id integer NOT NULL REFERENCES price_version,
    effective_from   timestamptz NOT NULL,
    PRIMARY KEY (subscription_id, item, effective_from, known_number)
);

-- Who has a server, from a slot edge to a slot edge. Append-only; the highest known_number covering an instant owns it.
CREATE TABLE assignment (
    known_number    bigint PRIMARY KEY,
    subject         text NOT NULL,
    subscription_id text REFERENCES subscription,  -- null: nobody (retired)
    valid_from      timestamptz NOT NULL,
    valid_to        timestamptz NOT NULL DEFAULT 'infinity',
    said_by         text NOT NULL,
    said_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT assignment_span_ck CHECK (valid_to > valid_from),
    CONSTRAINT assignment_edge_ck CHECK (
        extract(epoch FROM valid_from)::bigint % 900 = 0
        AND (valid_to = 'infinity' OR extract(epoch FROM valid_to)::bigint % 900 = 0))
);
CREATE INDEX assignment_subject_idx ON assignment (subject);

CREATE FUNCTION refuse_change_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or deleted; add a new one', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER catalogue_version_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON catalogue_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER meter_version_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON meter_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER price_version_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON price_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER subscription_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON subscription
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER subscription_end_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON subscription_end
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER price_binding_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON price_binding
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER assignment_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON assignment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
