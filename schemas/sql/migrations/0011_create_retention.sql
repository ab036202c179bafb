-- Retention: up to where slots and samples were dropped, and what that forbids. And sums of slots, for looking.

-- Appended to, never edited; the highest one holds. Numbered as known, so that a flush folded before it is folded again.
CREATE TABLE retention_edge (
    known_number   bigint PRIMARY KEY,
    edge_at        timestamptz NOT NULL,       -- an event before it is parked
    dropped_before timestamptz NOT NULL,       -- slots and samples before it may be gone
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    -- A month, a clock moved and the hour that active hours reach back: what an event from edge_at on changes is whole.
    CONSTRAINT retention_edge_span_ck CHECK (dropped_before <= edge_at - interval '768 hours'),
    -- A midnight in UTC, so that every slot and day lies on one side.
    CONSTRAINT retention_edge_midnight_ck CHECK (
        extract(epoch FROM edge_at) % 86400 = 0 AND extract(epoch FROM dropped_before) % 86400 = 0)
);
CREATE TRIGGER retention_edge_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON retention_edge
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

CREATE FUNCTION check_retention_edge_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM retention_edge r WHERE r.edge_at > NEW.edge_at OR r.dropped_before > NEW.dropped_before) THEN
        RAISE EXCEPTION 'the retention edge never goes back: % lies before what was dropped', NEW.dropped_before
            USING ERRCODE = 'check_violation', CONSTRAINT = 'retention_edge_rises_ck';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER retention_edge_rises BEFORE INSERT ON retention_edge
    FOR EACH ROW EXECUTE FUNCTION check_retention_edge_v1();

-- A total whose slots are gone would be computed from what is left, and the rest credited: such a change is refused whole.
CREATE FUNCTION check_dirty_mark_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    behind record;
BEGIN
    SELECT a.time_from, r.dropped_before INTO behind
    FROM added a JOIN (SELECT max(dropped_before) AS dropped_before FROM retention_edge) r
        ON a.time_from < r.dropped_before LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a change from % on lies behind the retention edge: usage before % was dropped; let it begin there',
            behind.time_from, behind.dropped_before
            USING ERRCODE = 'check_violation', CONSTRAINT = 'dirty_mark_retention_ck', TABLE = 'dirty_mark';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER dirty_mark_retention AFTER INSERT ON dirty_mark REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_dirty_mark_v1();

-- Usage over time, in UTC, for people and dashboards. No money path reads these: with TimescaleDB they are continuous
-- aggregates, which lag. Of active hours, `slots` are the slots in which a server was seen.
CREATE VIEW usage_by_hour AS
SELECT series_id, date_trunc('hour', slot_start, 'UTC') AS starts_at, sum(quantity) AS quantity, count(*) AS slots
FROM usage_bucket GROUP BY 1, 2;

CREATE VIEW usage_by_day AS
SELECT series_id, date_trunc('day', slot_start, 'UTC') AS starts_at, sum(quantity) AS quantity, count(*) AS slots
FROM usage_bucket GROUP BY 1, 2;

CREATE VIEW usage_by_month AS
SELECT series_id, date_trunc('month', slot_start, 'UTC') AS starts_at, sum(quantity) AS quantity, count(*) AS slots
FROM usage_bucket GROUP BY 1, 2;

GRANT SELECT ON retention_edge, usage_by_hour, usage_by_day, usage_by_month TO rackmeter_app;
-- The collector tells a sender at once that an event lies behind the edge.
GRANT SELECT ON retention_edge TO rackmeter_collector;
