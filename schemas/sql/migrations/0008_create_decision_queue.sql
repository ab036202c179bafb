-- Decisions that are made again: parked events that what they waited for has come for, and what an operator settles.

-- Counted after all: the row stays, so that it can be seen what became of the event.
ALTER TABLE decision DROP CONSTRAINT decision_outcome_ck;
ALTER TABLE decision ADD CONSTRAINT decision_outcome_ck CHECK (outcome IN
    ('counted', 'duplicate', 'conflict', 'quarantined', 'parked', 'ignored', 'control', 'handed_over'));

-- An operator said that the event will never count: it holds nobody any more.
ALTER TABLE decision ADD COLUMN dropped boolean NOT NULL DEFAULT false;
ALTER TABLE decision ADD CONSTRAINT decision_dropped_ck CHECK (NOT dropped OR settled);

-- Events that the worker of their partition decides about again, inside a flush of its own. Only rows it saw are deleted.
CREATE TABLE decision_queue (
    queue_number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic            text NOT NULL,
    partition        integer NOT NULL,
    log_offset       bigint NOT NULL,
    index_in_message integer NOT NULL,
    said_by          text NOT NULL,
    queued_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT decision_queue_once_key UNIQUE (topic, partition, log_offset, index_in_message),
    -- Follows its decision when a log is set aside; nobody reads that log any more, so it waits for ever.
    CONSTRAINT decision_queue_decision_fk FOREIGN KEY (topic, partition, log_offset, index_in_message)
        REFERENCES decision ON UPDATE CASCADE
);

-- What became of decisions after they were made. Nothing of it changes.
CREATE TABLE decision_change (
    change_number    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_id           uuid NOT NULL,
    partition        integer NOT NULL,
    log_offset       bigint NOT NULL,
    index_in_message integer NOT NULL,
    from_outcome     text NOT NULL,
    from_reason      text NOT NULL,
    to_outcome       text NOT NULL,             -- 'dropped' where an operator let it go
    to_reason        text NOT NULL,
    said_by          text NOT NULL,
    note             text NOT NULL DEFAULT '',
    changed_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT decision_change_outcome_ck CHECK (
        from_outcome IN ('quarantined', 'parked', 'conflict')
        AND to_outcome IN ('counted', 'duplicate', 'quarantined', 'parked', 'ignored', 'control', 'dropped')),
    CONSTRAINT decision_change_note_ck CHECK (to_outcome <> 'dropped' OR note <> '')
);
CREATE INDEX decision_change_position_idx ON decision_change (log_id, partition, log_offset, index_in_message);
CREATE TRIGGER decision_change_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON decision_change
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

GRANT SELECT, INSERT, DELETE ON decision_queue TO rackmeter_app;
GRANT SELECT, INSERT ON decision_change TO rackmeter_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO rackmeter_app;
