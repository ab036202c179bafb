-- What the pages read beside the reports' statements. Nothing here takes a lock or writes.

-- name: may_read_all
SELECT pg_has_role(session_user, 'pg_read_all_data', 'MEMBER')

-- name: act_as_reader
SET ROLE pg_read_all_data

-- name: act_as_application
SET ROLE rackmeter_app

-- name: read_only
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: open_outcomes
-- How many events nobody has settled, by outcome.
SELECT outcome, count(*) AS count FROM decision
WHERE NOT settled AND outcome IN ('quarantined', 'parked', 'conflict')
GROUP BY outcome

-- name: open_reasons
-- Events that nobody has settled, by reason.
SELECT outcome, reason, count(*) AS count, count(DISTINCT source) AS sources, min(log_time) AS first_at,
    max(log_time) AS last_at
FROM decision
WHERE NOT settled AND outcome IN ('quarantined', 'parked', 'conflict')
GROUP BY outcome, reason
ORDER BY count(*) DESC, outcome COLLATE "C", reason COLLATE "C"

-- name: month_states
-- How far the months of the accounts are.
SELECT to_char(p.period_start AT TIME ZONE a.time_zone, 'YYYY-MM') AS month, p.state, count(*) AS count
FROM billing_period p JOIN billing_account a USING (account_id)
GROUP BY 1, 2
ORDER BY 1 DESC, 2
LIMIT 12

-- name: months
-- Months with usage that somebody has, newest first.
SELECT DISTINCT to_char(i.period_start AT TIME ZONE a.time_zone, 'YYYY-MM') AS month
FROM billed_item i JOIN billing_account a USING (account_id)
ORDER BY month DESC

-- name: accounts
-- Who is billed, and how many servers each has ever had.
SELECT a.account_id AS account, a.name, a.currency, a.time_zone AS zone,
    count(DISTINCT s.subscription_id) AS subscriptions, count(DISTINCT g.subject) AS servers
FROM billing_account a
LEFT JOIN subscription s USING (account_id)
LEFT JOIN assignment g USING (subscription_id)
GROUP BY a.account_id, a.name, a.currency, a.time_zone
ORDER BY a.account_id COLLATE "C"

-- name: servers
-- Every server that anything is known of: who has had it (in the order it became known), when it was first and last heard.
SELECT known.subject AS server, owned.accounts, heard.first_at, heard.last_at
FROM (SELECT subject FROM assignment UNION SELECT subject FROM source_subject) AS known
LEFT JOIN LATERAL (
    SELECT array_agg(account_id ORDER BY first_known) AS accounts FROM (
        SELECT s.account_id, min(a.known_number) AS first_known
        FROM assignment a JOIN subscription s USING (subscription_id)
        WHERE a.subject = known.subject GROUP BY s.account_id) AS owner) AS owned ON true
LEFT JOIN LATERAL (
    SELECT min(first_at) AS first_at, max(last_at) AS last_at FROM source_subject WHERE subject = known.subject
) AS heard ON true
WHERE %(account)s::text IS NULL OR %(account)s = ANY (owned.accounts)
ORDER BY length(known.subject), known.subject COLLATE "C"

-- name: slots
-- A meter's slots of a server that begin in [from, to).
SELECT b.slot_start, b.quantity, m.unit, m.version, nullif(s.source, '') AS source, m.slot_seconds
FROM series s
JOIN meter_version m USING (meter_version_id)
JOIN usage_bucket b ON b.series_id = s.series_id AND b.slot_start >= %(start)s AND b.slot_start < %(end)s
WHERE s.subject = %(server)s AND m.meter = %(meter)s
ORDER BY b.slot_start, m.version, s.source COLLATE "C"

-- name: meter_at
-- The version of a meter that is in force at a time.
SELECT meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max
FROM meter_version WHERE meter = %(meter)s AND effective_from <= %(at)s
ORDER BY effective_from DESC, version DESC LIMIT 1

-- name: homes
-- Sources that speak for a server in events of a type, each with its home partition; the log they are in.
SELECT DISTINCT s.source, e.partition
FROM source_subject s JOIN identity_epoch e USING (source)
WHERE s.subject = %(server)s AND s.event_type = %(event_type)s
ORDER BY s.source, e.partition

-- name: archive_bytes
-- How much is archived of a partition, over all the logs the topic has been.
SELECT coalesce(sum(f.byte_count), 0)::bigint AS bytes
FROM log_history h JOIN archive_file f ON f.topic = h.topic AND f.log_id = ANY (h.log_ids)
WHERE h.topic = %(topic)s AND f.partition = %(partition)s

-- name: log_names
-- The name each of a topic's logs goes by, by its number, and how far it was decided about in a partition.
SELECT h.number, h.name, coalesce(o.offset_next, 0) AS offset_next
FROM log_history h
LEFT JOIN consumer_offset o ON o.stage = 'aggregate' AND o.topic = h.name AND o.partition = %(partition)s
WHERE h.topic = %(topic)s

-- name: outcomes_at
-- What was decided about events other than that they count, by position.
SELECT d.topic AS name, d.log_offset AS "offset", d.index_in_message AS "index", d.outcome, d.reason
FROM decision d
JOIN unnest(%(names)s::text[], %(offsets)s::bigint[]) AS wanted (name, log_offset)
    ON d.topic = wanted.name AND d.log_offset = wanted.log_offset
WHERE d.partition = %(partition)s

-- name: line
-- A line with its breakdown, its account's zone, and the meter its item was bound to when the service ended.
SELECT i.invoice_id, i.number, i.account_id AS account, i.currency, i.state, a.time_zone AS zone,
    l.line_number AS line, l.subscription_id AS subscription, l.item, l.product, nullif(l.subject, '') AS server,
    l.service_period_start AS service_from, l.service_period_end AS service_to, l.description, l.quantity,
    bound.unit, bound.meter, l.amount_exact, l.amount_minor, l.breakdown
FROM invoice_line l
JOIN invoice i USING (invoice_id)
JOIN billing_account a USING (account_id)
LEFT JOIN LATERAL (
    SELECT m.unit, b.meter FROM price_binding b JOIN meter_version m USING (meter)
    WHERE b.subscription_id = l.subscription_id AND b.item = l.item AND b.effective_from < l.service_period_end
    ORDER BY b.effective_from DESC, b.known_number DESC, m.version DESC LIMIT 1) bound ON true
WHERE l.invoice_id = %(invoice_id)s AND l.line_number = %(line)s

-- name: line_days
-- What a line's subscription used by server and local day, from the buckets and assignments of now; a row without a day
-- is the server's sum, one without a server everybody's. An hour is active once, counted from the period's start, and
-- belongs to who held its start.
WITH mine AS (
    SELECT DISTINCT subject FROM assignment
    WHERE subscription_id = %(subscription)s AND (%(server)s::text IS NULL OR subject = %(server)s)
),
edge AS (
    SELECT subject, '-infinity'::timestamptz AS at FROM mine
    UNION SELECT subject, valid_from FROM assignment JOIN mine USING (subject)
    UNION SELECT subject, valid_to FROM assignment JOIN mine USING (subject) WHERE valid_to <> 'infinity'
),
span AS (
    SELECT subject, at AS span_from,
        coalesce(lead(at) OVER (PARTITION BY subject ORDER BY at), 'infinity') AS span_to
    FROM edge
),
held AS (
    SELECT span.subject, greatest(span.span_from, %(start)s) AS held_from, least(span.span_to, %(end)s) AS held_to
    FROM span
    CROSS JOIN LATERAL (
        SELECT a.subscription_id FROM assignment a
        WHERE a.subject = span.subject AND a.valid_from <= span.span_from AND a.valid_to > span.span_from
        ORDER BY a.known_number DESC LIMIT 1) owner
    WHERE owner.subscription_id = %(subscription)s
),
slot AS (
    SELECT s.subject, m.aggregation, m.unit, b.quantity, counted.at, (counted.at AT TIME ZONE %(zone)s)::date AS day
    FROM held
    JOIN series s USING (subject)
    JOIN meter_version m USING (meter_version_id)
    JOIN usage_bucket b ON b.series_id = s.series_id
        AND b.slot_start >= held.held_from AND b.slot_start < least(held.held_to + interval '1 hour', %(end)s)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN m.aggregation = 'active_hours' THEN date_bin('1 hour', b.slot_start, %(start)s)
            ELSE b.slot_start END AS at) AS counted
    WHERE m.meter = %(meter)s AND counted.at >= held.held_from AND counted.at < held.held_to
)
SELECT subject AS server, day, count(*) AS slots, unit,
    CASE WHEN aggregation = 'active_hours' THEN count(DISTINCT (subject, at)) FILTER (WHERE quantity > 0)
        ELSE sum(quantity) END AS quantity
FROM slot
GROUP BY GROUPING SETS ((subject, day, aggregation, unit), (subject, aggregation, unit), (aggregation, unit))
ORDER BY subject COLLATE "C" NULLS LAST, day NULLS LAST, unit

-- name: ledger_entries
-- The newest entries of a ledger account, with the balance after each.
SELECT t.ledger_transaction_id AS transaction, t.key, t.kind, t.booked_at, e.amount, e.currency,
    e.account_id AS account, e.period_start, a.time_zone AS zone, i.number AS invoice, x.line_number AS line,
    sum(e.amount) OVER (ORDER BY e.ledger_entry_id) AS balance
FROM ledger_entry e
JOIN ledger_account l USING (ledger_account_id)
JOIN ledger_transaction t USING (ledger_transaction_id)
LEFT JOIN billing_account a ON a.account_id = e.account_id
LEFT JOIN invoice_entry x USING (ledger_entry_id)
LEFT JOIN invoice i USING (invoice_id)
WHERE l.name = %(name)s
ORDER BY e.ledger_entry_id DESC
LIMIT %(limit)s

-- name: proofs
-- Every invoice with what its proof compared.
SELECT i.invoice_id, i.number, i.account_id AS account,
    to_char(i.period_start AT TIME ZONE a.time_zone, 'YYYY-MM') AS period, i.state, i.proven_at, i.proof
FROM invoice i JOIN billing_account a USING (account_id)
ORDER BY i.period_start DESC, i.number COLLATE "C" NULLS FIRST, i.account_id COLLATE "C"

-- name: proof_failures
-- Drafts that were withdrawn, newest first.
SELECT f.invoice_id, f.account_id AS account,
    to_char(f.period_start AT TIME ZONE a.time_zone, 'YYYY-MM') AS period, f.failed_at, f.differences
FROM proof_failure f JOIN billing_account a USING (account_id)
ORDER BY f.failed_at DESC
LIMIT %(limit)s
