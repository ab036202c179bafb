-- DuckDB statements: does every decision follow from the evidence?

-- name: create_stand_in
-- The first repeat, in a later log, of an event that was taken and lost before it was archived: its evidence. What was
-- decided about the lost one is known; it is taken as that.
CREATE TABLE stand_in AS
SELECT DISTINCT ON (v.source, v.event_id) v.partition, v.log_offset, v.index_in_message,
    coalesce(u.outcome, 'counted') AS outcome
FROM verdict v
JOIN decision d USING (partition, log_offset, index_in_message)
JOIN lost ON lost.source = v.source AND lost.epoch = left(v.event_id, 16)
    AND try_cast(right(v.event_id, 12) AS BIGINT) BETWEEN lost.first AND lost.after - 1
    AND v.partition >= lost.partitions_before
LEFT JOIN unarchived u ON u.source = v.source AND u.event_id = v.event_id AND u.outcome IN ('control', 'ignored')
WHERE d.outcome = 'duplicate'
ORDER BY v.source, v.event_id, v.partition, v.log_offset, v.index_in_message

-- name: create_decided
-- Every event with what was decided about it (no row in `decision` says counted), and what it is evidence of. What was
-- parked and decided about again when its meter came is parked by a catalogue that did not have the meter yet.
CREATE TABLE decided AS
SELECT verdict.*, coalesce(decision.outcome, 'counted') AS said, coalesce(decision.reason, '') AS reason,
    coalesce(decision.settled, false) AS settled,
    CASE WHEN decision.was_parked AND verdict.expected = 'parked' THEN 'parked'
        ELSE coalesce(stand_in.outcome, decision.outcome, 'counted') END AS outcome
FROM verdict
LEFT JOIN decision USING (partition, log_offset, index_in_message)
LEFT JOIN stand_in USING (partition, log_offset, index_in_message)

-- name: drop_verdict
DROP TABLE verdict

-- name: create_taken
-- Events that made their identity seen.
CREATE TABLE taken AS
SELECT partition, log_offset, index_in_message, source, event_id, subject, event_type, at_us, nano, stamped FROM decided
WHERE outcome IN ('counted', 'control', 'ignored')

-- name: decisions_of_nothing
SELECT d.partition, d.log_offset, d.index_in_message, d.outcome
FROM decision d JOIN cut_offset USING (partition)
ANTI JOIN decided v ON v.partition = d.partition AND v.log_offset = d.log_offset
    AND v.index_in_message = d.index_in_message
WHERE d.log_offset < cut_offset.offset_next ORDER BY ALL

-- name: taken_twice
SELECT source, event_id, count(*), any_value(subject) FROM taken GROUP BY source, event_id HAVING count(*) > 1
ORDER BY source, event_id

-- name: without_twin
-- Said to repeat an event that was never taken.
SELECT d.partition, d.log_offset, d.index_in_message, d.source, d.event_id, d.outcome, d.subject
FROM decided d ANTI JOIN taken t ON t.source = d.source AND t.event_id = d.event_id
WHERE d.outcome IN ('duplicate', 'conflict') ORDER BY ALL

-- name: other_content
-- Settled as a repeat, but what it says is not what the event that was taken says: that is a conflict. A time that the
-- collector gave is no word of the sender's: sent again, the event gets another.
SELECT d.partition, d.log_offset, d.index_in_message, d.source, d.event_id, d.subject
FROM decided d JOIN taken t ON t.source = d.source AND t.event_id = d.event_id
WHERE d.outcome = 'duplicate' AND d.settled
    AND (d.event_type IS DISTINCT FROM t.event_type OR d.subject IS DISTINCT FROM t.subject
        OR (d.at_us IS DISTINCT FROM t.at_us AND NOT (d.stamped AND t.stamped))
        OR d.nano IS DISTINCT FROM t.nano)
ORDER BY ALL

-- name: other_outcomes
-- Decided otherwise than the event itself says. A duplicate may be anything; a parked one may be too sparse; an ignore
-- rule made later does not undo what was counted. What no meter read then may have one now: it waits, or was sent again.
-- What lies behind the retention edge is parked, whatever else it is.
SELECT partition, log_offset, index_in_message, source, event_id, outcome, expected, subject FROM decided
WHERE outcome NOT IN ('duplicate', 'conflict') AND outcome <> expected
    AND NOT (outcome = 'parked' AND reason = 'too_sparse' AND expected IN ('counted', 'control', 'ignored'))
    AND NOT (outcome = 'parked' AND reason = 'behind_retention' AND expected IN ('counted', 'quarantined')
        AND at_us < $edge_us)
    AND NOT (outcome = 'handed_over' AND expected = 'parked')
    AND NOT (outcome = 'counted' AND expected = 'ignored' AND countable)
    AND NOT (outcome = 'parked' AND reason = 'unknown_meter' AND expected IN ('counted', 'quarantined', 'ignored')
        AND (NOT settled OR (source, event_id) IN (SELECT (source, event_id) FROM taken)))
ORDER BY ALL

-- name: too_dense_to_be_sparse
-- Parked as too sparse although the source's numbers are few.
SELECT d.partition, d.log_offset, d.index_in_message, d.source, d.event_id, d.subject
FROM decided d JOIN (
    SELECT source, left(event_id, 16) AS epoch, count(*) AS numbers FROM taken GROUP BY source, epoch
) seen ON seen.source = d.source AND seen.epoch = left(d.event_id, 16)
WHERE d.outcome = 'parked' AND d.reason = 'too_sparse' AND seen.numbers < 32768 ORDER BY ALL

-- name: recount
-- What is archived, and what was decided about events that never were; of those, counted ones leave no row.
SELECT partition, outcome, sum(events)::BIGINT
FROM (
    SELECT partition, said AS outcome, count(*) AS events FROM decided GROUP BY ALL
    UNION ALL
    SELECT partition, outcome, count(*) FROM unarchived GROUP BY ALL
)
GROUP BY partition, outcome

-- name: taken_unarchived
SELECT partition, count(*) FROM unarchived WHERE outcome IN ('control', 'ignored') GROUP BY partition

-- name: outcome_counts
SELECT said, count(*) FROM decided GROUP BY said
