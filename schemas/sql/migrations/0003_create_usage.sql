-- What was used: samples, slots, days. Keyed by series alone: no customer, no price.
-- Bucket and sample tables have the time in their keys, as a hypertable needs it.

CREATE TABLE series (
    series_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_version_id integer NOT NULL REFERENCES meter_version,
    subject          text NOT NULL,
    source           text NOT NULL,            -- '' for meters that do not need samples in order
    UNIQUE (subject, meter_version_id, source)
);

-- Samples are kept once an event, for all ordered meters that read it.
CREATE TABLE sample_stream (
    sample_stream_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source           text NOT NULL,
    subject          text NOT NULL,
    event_type       text NOT NULL,
    UNIQUE (source, subject, event_type)
);

CREATE TABLE usage_sample (
    sample_stream_id bigint NOT NULL,
    occurred_at      timestamptz NOT NULL,
    epoch            text NOT NULL,            -- (epoch, number) settle the order of one instant
    number           bigint NOT NULL,
    readings         jsonb NOT NULL,           -- field -> whole number of 10^-9
    PRIMARY KEY (sample_stream_id, occurred_at, epoch, number)
);

CREATE TABLE usage_bucket (
    series_id  bigint NOT NULL,
    slot_start timestamptz NOT NULL,
    quantity   numeric NOT NULL,               -- in the meter's unit, exact
    PRIMARY KEY (series_id, slot_start)
);

-- Sums of buckets over a UTC day; additive meters only.
CREATE TABLE usage_day (
    series_id bigint NOT NULL,
    day       date NOT NULL,
    quantity  numeric NOT NULL,
    PRIMARY KEY (series_id, day)
);

-- Something a total depends on changed. Append-only and numbered; names series and time, never an owner.
CREATE TABLE dirty_mark (
    mark_number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject     text,                          -- null: every subject of the subscription
    meter       text,                          -- null: every meter
    subscription_id text,                      -- set by changes of prices and subscriptions
    time_from   timestamptz NOT NULL,
    time_to     timestamptz NOT NULL,
    CONSTRAINT dirty_mark_names_something_ck CHECK (subject IS NOT NULL OR subscription_id IS NOT NULL),
    CONSTRAINT dirty_mark_span_ck CHECK (time_to > time_from)
);
