-- What the pipeline knows about its log: where each stage stands, which identities were seen, what was decided.

-- One row: which database this is. A restored copy is told from its original by `generation`.
CREATE TABLE installation (
    only_row      boolean PRIMARY KEY DEFAULT true,
    database_id   uuid NOT NULL DEFAULT gen_random_uuid(),
    generation    integer NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT installation_one_row_ck CHECK (only_row),
    CONSTRAINT installation_generation_ck CHECK (generation > 0)
);
INSERT INTO installation DEFAULT VALUES;

-- A topic as it was made. The number of partitions is for life: a source's home is a hash modulo it.
-- A log that was lost is set aside under the name `<topic>@<log id>`, with its offsets, decisions and tallies.
CREATE TABLE log (
    topic           text PRIMARY KEY,
    log_id          uuid NOT NULL,
    kafka_topic_id  text NOT NULL,
    partition_count integer NOT NULL,
    adopted_at      timestamptz NOT NULL DEFAULT now(),
    number          integer NOT NULL DEFAULT 0,     -- of the topic's logs, the oldest is 0
    earlier_ids     uuid[] NOT NULL DEFAULT '{}',   -- ids it had before; nothing was lost in between, offsets go on
    set_aside_from  text,                           -- the topic it was the log of; null: it still is
    CONSTRAINT log_partition_count_ck CHECK (partition_count > 0),
    CONSTRAINT log_name_ck CHECK (set_aside_from IS NULL OR topic = set_aside_from || '@' || log_id)
);
CREATE UNIQUE INDEX log_number_idx ON log (coalesce(set_aside_from, topic), number);

-- Every log a topic has been, each with all its ids: by them its archive files are found.
CREATE VIEW log_history AS
SELECT coalesce(set_aside_from, topic) AS topic, topic AS name, number, earlier_ids || log_id AS log_ids, partition_count
FROM log;

-- Where a stage stands in a partition; also its fence. Every flush raises flush_number, also one without records.
CREATE TABLE consumer_offset (
    stage        text NOT NULL,
    topic        text NOT NULL REFERENCES log,
    partition    integer NOT NULL,
    log_id       uuid NOT NULL,
    offset_next  bigint NOT NULL DEFAULT 0,
    offset_first bigint NOT NULL DEFAULT 0,    -- where the reading of this log began
    flush_number bigint NOT NULL DEFAULT 0,
    generation   integer NOT NULL,
    log_time_max timestamptz,                  -- running maximum of LogAppendTime
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stage, topic, partition),
    CONSTRAINT consumer_offset_position_ck CHECK (offset_first >= 0 AND offset_next >= offset_first AND flush_number >= 0)
);

-- Law 1 as a constraint: what a partition received is what was decided about it.
CREATE TABLE partition_tally (
    topic       text NOT NULL,
    partition   integer NOT NULL,
    received    bigint NOT NULL DEFAULT 0,
    counted     bigint NOT NULL DEFAULT 0,
    duplicate   bigint NOT NULL DEFAULT 0,
    conflict    bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    parked      bigint NOT NULL DEFAULT 0,
    ignored     bigint NOT NULL DEFAULT 0,
    control     bigint NOT NULL DEFAULT 0,
    handed_over bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition),
    CONSTRAINT partition_tally_adds_up_ck CHECK (
        received = counted + duplicate + conflict + quarantined + parked + ignored + control + handed_over)
);

-- Which numbers of a (source, epoch) were seen, and in which state. Sets of intervals: a few bytes however many events.
CREATE TABLE identity_epoch (
    source      text NOT NULL,
    epoch       text NOT NULL,                 -- 16 hex digits
    partition   integer NOT NULL,              -- the source's home
    first_seen_at timestamptz NOT NULL,        -- by the log's clock; the newest epoch is the one that lives
    counted     int8multirange NOT NULL DEFAULT '{}',   -- counted, control or ignored
    quarantined int8multirange NOT NULL DEFAULT '{}',
    parked      int8multirange NOT NULL DEFAULT '{}',
    dropped     int8multirange NOT NULL DEFAULT '{}',   -- declared by the source as never to come; may come all the same
    PRIMARY KEY (source, epoch),
    CONSTRAINT identity_epoch_epoch_ck CHECK (epoch ~ '^[0-9a-f]{16}$'),
    CONSTRAINT identity_epoch_one_state_ck CHECK (
        NOT counted && quarantined AND NOT counted && parked AND NOT quarantined && parked)
);

-- What a source said about itself by numbered control events.
CREATE TABLE source_completeness (
    source          text NOT NULL,
    epoch           text NOT NULL,
    subject         text NOT NULL,             -- the one it spoke of; '' for all of its subjects
    complete_until  timestamptz NOT NULL,      -- 'infinity' once retired
    number          bigint NOT NULL,           -- of the control event that said so; counts once no hole lies before it
    PRIMARY KEY (source, epoch, subject)
);

-- Up to when a source is complete, for the subject '' (all of its subjects) or the one it named. The newest epoch speaks
-- for the source; earlier ones may have no hole at all, the newest none before what it said.
CREATE VIEW source_complete AS
WITH epoch AS (
    SELECT source, epoch, numbers,
           numbers @> int8range(1, greatest(upper(numbers), 1)) AS has_no_hole,
           row_number() OVER (PARTITION BY source ORDER BY first_seen_at DESC, epoch DESC) AS age
    FROM (SELECT *, counted + quarantined + parked + dropped AS numbers FROM identity_epoch) AS known
), earlier AS (
    SELECT source, coalesce(bool_and(has_no_hole) FILTER (WHERE age > 1), true) AS has_no_hole FROM epoch GROUP BY source
)
SELECT e.source,
       coalesce(c.subject, '') AS subject,
       c.complete_until,                          -- null: it never said
       earlier.has_no_hole
           AND CASE WHEN c.number IS NULL THEN e.has_no_hole ELSE e.numbers @> int8range(1, c.number + 1) END
           AS has_no_hole
FROM epoch e JOIN earlier USING (source) LEFT JOIN source_completeness c USING (source, epoch)
WHERE e.age = 1;

-- Which source speaks for which subject, and between which event times.
CREATE TABLE source_subject (
    source        text NOT NULL,
    subject       text NOT NULL,
    event_type    text NOT NULL,
    first_at      timestamptz NOT NULL,
    last_at       timestamptz NOT NULL,
    PRIMARY KEY (source, subject, event_type)
);
CREATE INDEX source_subject_subject_idx ON source_subject (subject);  -- the gate asks by subject

-- Every decision but "counted", one row an event. index_in_message is -1 for a message that could not be taken apart.
CREATE TABLE decision (
    topic            text NOT NULL,
    partition        integer NOT NULL,
    log_offset       bigint NOT NULL,
    index_in_message integer NOT NULL,
    outcome          text NOT NULL,
    reason           text NOT NULL,            -- code, see docs/reasons.md
    detail           text NOT NULL DEFAULT '', -- names field and value, for people
    source           text,                     -- null where it could not be read
    event_id         text,
    subject          text,
    event_type       text,
    occurred_at      timestamptz,
    log_time         timestamptz NOT NULL,
    content_digest   bytea,                    -- of a duplicate's bytes; evidence
    payload          bytea,                    -- original bytes of what is quarantined or parked
    settled          boolean NOT NULL DEFAULT false,  -- a duplicate whose twin was compared; a bad event that was superseded
    PRIMARY KEY (topic, partition, log_offset, index_in_message),
    CONSTRAINT decision_outcome_ck CHECK (outcome IN
        ('duplicate', 'conflict', 'quarantined', 'parked', 'ignored', 'control', 'handed_over')),
    CONSTRAINT decision_bytes_kept_ck CHECK (outcome NOT IN ('quarantined', 'parked') OR payload IS NOT NULL)
);
-- The gate and `quarantine list` ask for what is open; the settling job for duplicates without a verdict.
CREATE INDEX decision_open_idx ON decision (outcome, subject) WHERE NOT settled AND outcome IN
    ('duplicate', 'conflict', 'quarantined', 'parked');
CREATE INDEX decision_identity_idx ON decision (source, event_id) WHERE outcome IN ('quarantined', 'parked');

-- The evidence: one row a durable Parquet file. A file that is not listed here does not exist.
CREATE TABLE archive_file (
    topic        text NOT NULL,
    log_id       uuid NOT NULL,
    partition    integer NOT NULL,
    offset_first bigint NOT NULL,
    offset_next  bigint NOT NULL,
    log_day      date NOT NULL,
    path         text NOT NULL UNIQUE,          -- relative to the archive folder
    row_count    bigint NOT NULL,
    byte_count   bigint NOT NULL,
    digest       text NOT NULL,                -- sha256 of the file, hex
    written_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, log_id, partition, offset_first),
    CONSTRAINT archive_file_range_ck CHECK (offset_next > offset_first AND row_count > 0)
);

-- Numbers that were counted from a log which was lost before the archive had them. A repeat in a later log is their
-- evidence; until the archive has one, nothing they are part of can be proven.
CREATE TABLE lost_number (
    log     text NOT NULL REFERENCES log,      -- the name it is set aside under
    source  text NOT NULL,
    epoch   text NOT NULL,
    numbers int8multirange NOT NULL,
    found   int8multirange NOT NULL DEFAULT '{}',
    PRIMARY KEY (log, source, epoch),
    CONSTRAINT lost_number_found_ck CHECK (numbers @> found AND NOT isempty(numbers))
);
CREATE INDEX lost_number_source_idx ON lost_number (source, epoch);
