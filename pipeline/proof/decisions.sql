-- DuckDB statements: does every decision follow from the evidence?

-- name: create_decided
-- Every event with what was decided about it; no row in `decision` says counted.
CREATE TABLE decided AS
SELECT verdict.*, coalesce(decision.outcome, 'counted') AS outcome, coalesce(decision.reason, '') AS reason
FROM verdict LEFT JOIN decision USING (partition, log_offset, index_in_message)

-- name: drop_verdict
DROP TABLE verdict

-- name: create_taken
-- Events that made their identity seen.
CREATE TABLE taken AS
SELECT partition, log_offset, index_in_message, source, event_id, subject FROM decided
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

-- name: other_outcomes
-- Decided otherwise than the event itself says. A duplicate may be anything; a parked one may be too sparse; an ignore
-- rule made later does not undo what was counted.
SELECT partition, log_offset, index_in_message, source, event_id, outcome, expected, subject FROM decided
WHERE outcome NOT IN ('duplicate', 'conflict') AND outcome <> expected
    AND NOT (outcome = 'parked' AND reason = 'too_sparse' AND expected IN ('counted', 'control', 'ignored'))
    AND NOT (outcome = 'handed_over' AND expected = 'parked')
    AND NOT (outcome = 'counted' AND expected = 'ignored' AND countable)
ORDER BY ALL

-- name: too_dense_to_be_sparse
-- Parked as too sparse although the source's numbers are few.
SELECT d.partition, d.log_offset, d.index_in_message, d.source, d.event_id, d.subject
FROM decided d JOIN (
    SELECT source, left(event_id, 16) AS epoch, count(*) AS numbers FROM taken GROUP BY source, epoch
) seen ON seen.source = d.source AND seen.epoch = left(d.event_id, 16)
WHERE d.outcome = 'parked' AND d.reason = 'too_sparse' AND seen.numbers < 4096 ORDER BY ALL

-- name: recount
SELECT partition, outcome, count(*) FROM decided GROUP BY partition, outcome

-- name: outcome_counts
SELECT outcome, count(*) FROM decided GROUP BY outcome
