-- name: usage_list
-- Buckets summed by owner, server, meter and stretch of local time. An hour is active once, however many of its slots
-- are; hours are counted from the stretch's start. Without a zone, each account's days and months are those of its
-- invoices, and what nobody had is cut by UTC.
WITH edge AS (
    SELECT subject, '-infinity'::timestamptz AS at FROM series
    UNION SELECT subject, valid_from FROM assignment
    UNION SELECT subject, valid_to FROM assignment WHERE valid_to <> 'infinity'
),
span AS (
    SELECT subject, at AS span_from,
        coalesce(lead(at) OVER (PARTITION BY subject ORDER BY at), 'infinity') AS span_to
    FROM edge
),
held AS (
    SELECT span.subject, span.span_from, span.span_to, s.account_id, s.starts_at, s.ends_at,
        coalesce(%(zone_name)s::text, account.time_zone, 'UTC') AS zone_name
    FROM span
    LEFT JOIN LATERAL (
        SELECT a.subscription_id FROM assignment a
        WHERE a.subject = span.subject AND a.valid_from <= span.span_from AND a.valid_to > span.span_from
        ORDER BY a.known_number DESC LIMIT 1) owner ON true
    LEFT JOIN subscription_span s USING (subscription_id)
    LEFT JOIN billing_account account USING (account_id)
),
slot AS (
    SELECT s.subject, m.meter, m.unit, m.aggregation, b.slot_start, b.quantity,
        date_trunc(%(by)s::text, b.slot_start, held.zone_name) AS stretch, held.zone_name,
        CASE WHEN b.slot_start >= held.starts_at AND b.slot_start < coalesce(held.ends_at, 'infinity')
            THEN held.account_id END AS account_id
    FROM series s
    JOIN meter_version m USING (meter_version_id)
    JOIN held USING (subject)
    JOIN usage_bucket b ON b.series_id = s.series_id
        -- greatest and least pass over what was not given.
        AND b.slot_start >= greatest(held.span_from, %(from_at)s::timestamptz,
            %(from_day)s::date::timestamp AT TIME ZONE held.zone_name)
        AND b.slot_start < least(held.span_to, %(to_at)s::timestamptz,
            %(to_day)s::date::timestamp AT TIME ZONE held.zone_name)
    WHERE (%(server)s::text IS NULL OR s.subject = %(server)s)
        AND (%(meter)s::text IS NULL OR m.meter = %(meter)s)
        -- So that the slots of everybody else are not read.
        AND (%(account)s::text IS NULL OR s.subject IN (
            SELECT a.subject FROM assignment a JOIN subscription USING (subscription_id) WHERE account_id = %(account)s))
)
SELECT account_id AS account, subject AS server, meter, stretch AS "from", zone_name AS zone,
    CASE WHEN aggregation = 'active_hours'
        THEN count(DISTINCT date_bin('1 hour', slot_start, stretch)) FILTER (WHERE quantity > 0)
        ELSE sum(quantity) END AS quantity,
    unit
FROM slot
WHERE %(account)s::text IS NULL OR account_id = %(account)s
GROUP BY account_id, subject, meter, stretch, zone_name, aggregation, unit
ORDER BY account_id COLLATE "C" NULLS LAST, subject COLLATE "C", meter COLLATE "C", stretch, unit

-- name: usage_dropped_before
SELECT max(dropped_before) AS dropped_before FROM retention_edge

-- name: usage_series
-- What is kept of one server.
SELECT m.meter, m.version, m.aggregation, nullif(s.source, '') AS source, count(b.slot_start) AS slots,
    min(b.slot_start) AS first_slot, max(b.slot_start) AS last_slot,
    CASE WHEN m.aggregation = 'active_hours'
        THEN count(DISTINCT date_trunc('hour', b.slot_start, 'UTC')) FILTER (WHERE b.quantity > 0)
        ELSE coalesce(sum(b.quantity), 0) END AS quantity,
    m.unit
FROM series s JOIN meter_version m USING (meter_version_id) LEFT JOIN usage_bucket b USING (series_id)
WHERE s.subject = %(server)s
GROUP BY s.series_id, m.meter, m.version, m.aggregation, s.source, m.unit
ORDER BY m.meter COLLATE "C", m.version, s.source COLLATE "C"

-- name: usage_sources
-- Who speaks for a server, and up to when it is known to be complete.
SELECT s.source, s.event_type, s.first_at, s.last_at,
    max(c.complete_until) FILTER (WHERE c.has_no_hole) AS complete_until,
    coalesce(bool_or(c.has_no_hole), false) AS has_no_hole,
    (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint
     FROM identity_epoch e, unnest(e.dropped - e.counted - e.quarantined - e.parked) AS r
     WHERE e.source = s.source) AS declared_lost
FROM source_subject s LEFT JOIN source_complete c ON c.source = s.source AND c.subject IN ('', s.subject)
WHERE s.subject = %(server)s
GROUP BY s.source, s.subject, s.event_type, s.first_at, s.last_at
ORDER BY s.source COLLATE "C", s.event_type COLLATE "C"

-- name: invoice_list
SELECT i.number, i.invoice_id, i.account_id AS account,
    to_char(i.period_start AT TIME ZONE a.time_zone, 'YYYY-MM') AS period, i.state, i.total_minor, i.currency,
    i.issued_on, i.due_on, i.proven_at, p.state AS payment, p.reference
FROM invoice i
JOIN billing_account a USING (account_id)
LEFT JOIN LATERAL (
    SELECT state, nullif(reference, '') AS reference FROM payment_attempt
    WHERE invoice_id = i.invoice_id ORDER BY attempt_number DESC LIMIT 1) p ON true
WHERE (%(account)s::text IS NULL OR i.account_id = %(account)s)
    AND (%(period)s::text IS NULL OR to_char(i.period_start AT TIME ZONE a.time_zone, 'YYYY-MM') = %(period)s)
    AND (%(state)s::text IS NULL OR i.state = %(state)s)
    AND (%(name)s::text IS NULL OR i.number = %(name)s OR i.invoice_id = %(name)s)
ORDER BY i.number COLLATE "C" NULLS LAST, i.account_id COLLATE "C", i.period_start

-- name: payment_list
SELECT i.number, i.account_id AS account, p.attempt_number AS attempt, p.gateway, p.state, p.amount_minor, p.currency,
    nullif(p.reference, '') AS reference, nullif(p.detail, '') AS detail, p.created_at, p.settled_at, p.invoice_id
FROM payment_attempt p JOIN invoice i USING (invoice_id)
WHERE (%(account)s::text IS NULL OR i.account_id = %(account)s)
    AND (%(state)s::text IS NULL OR p.state = %(state)s)
    AND (%(name)s::text IS NULL OR i.number = %(name)s OR i.invoice_id = %(name)s)
    AND (%(invoice_ids)s::text[] IS NULL OR p.invoice_id = ANY(%(invoice_ids)s::text[]))
ORDER BY i.number COLLATE "C", p.attempt_number

-- name: invoice_lines
-- The unit is of the meter the item was bound to when the line's service ended.
SELECT l.line_number AS line, l.subscription_id AS subscription, l.item, l.product, nullif(l.subject, '') AS server,
    l.service_period_start AS service_from, l.service_period_end AS service_to, l.description, l.quantity,
    bound.unit, l.amount_exact, l.amount_minor, i.currency
FROM invoice_line l
JOIN invoice i USING (invoice_id)
LEFT JOIN LATERAL (
    SELECT m.unit FROM price_binding b JOIN meter_version m USING (meter)
    WHERE b.subscription_id = l.subscription_id AND b.item = l.item AND b.effective_from < l.service_period_end
    ORDER BY b.effective_from DESC, b.known_number DESC, m.version DESC LIMIT 1) bound ON true
WHERE l.invoice_id = %(invoice_id)s
ORDER BY l.line_number

-- name: decision_list
-- Quarantined, parked and conflicting events, newest last; open ones unless all are asked for. `account` had the server
-- when the event happened, or when the log took it. `holds` follows the gate: an account with a month that is not closed
-- and not over before the event had the server, or one that the sender speaks for where the server could not be read.
WITH listed AS (
    SELECT *, least(occurred_at, log_time) AS at
    FROM decision
    WHERE outcome IN ('quarantined', 'parked', 'conflict')
        AND (%(settled)s::boolean OR NOT settled)
        AND (%(reason)s::text IS NULL OR reason = %(reason)s)
        AND (%(source)s::text IS NULL OR source = %(source)s)
        AND (%(server)s::text IS NULL OR subject = %(server)s)
        AND (%(since)s::timestamptz IS NULL OR log_time >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR log_time < %(until)s)
    ORDER BY log_time, topic COLLATE "C", partition, log_offset, index_in_message
    LIMIT %(limit)s
),
concerned AS (
    SELECT DISTINCT subject AS about, NULL::text AS sender, subject FROM listed WHERE subject IS NOT NULL
    UNION
    SELECT NULL, s.source, s.subject FROM source_subject s
    WHERE s.source IN (SELECT source FROM listed WHERE subject IS NULL)
),
held AS (
    SELECT a.subject, s.account_id, account.time_zone,
        (tstzmultirange(tstzrange(a.valid_from, a.valid_to)) - coalesce((
            SELECT range_agg(tstzrange(later.valid_from, later.valid_to)) FROM assignment later
            WHERE later.subject = a.subject AND later.known_number > a.known_number), '{}'::tstzmultirange))
        * tstzmultirange(tstzrange(s.starts_at, coalesce(s.ends_at, 'infinity'))) AS span,
        coalesce((SELECT max(p.period_end) FROM billing_period p
            WHERE p.account_id = s.account_id AND p.state = 'closed'), '-infinity') AS closed_until
    FROM assignment a
    JOIN subscription_span s USING (subscription_id)
    JOIN billing_account account USING (account_id)
    WHERE a.subject IN (SELECT subject FROM concerned)
)
SELECT topic, partition, log_offset AS "offset", index_in_message AS "index", outcome, reason, source, event_id,
    subject AS server, event_type, occurred_at,
    (SELECT h.account_id FROM held h WHERE h.subject = l.subject AND h.span @> l.at LIMIT 1) AS account,
    NOT settled AND EXISTS (
        SELECT FROM concerned c JOIN held h USING (subject)
        WHERE (c.about = l.subject OR l.subject IS NULL AND c.sender = l.source)
            AND upper(h.span) > greatest(h.closed_until,
                CASE WHEN l.outcome <> 'conflict' AND l.occurred_at IS NOT NULL
                    THEN date_trunc('month', l.at, h.time_zone) END)) AS holds,
    settled
FROM listed l
ORDER BY log_time, topic COLLATE "C", partition, log_offset, index_in_message

-- name: decision_at
SELECT topic, partition, log_offset AS "offset", index_in_message AS "index", outcome, reason, detail, source,
    event_id, subject AS server, event_type, occurred_at, log_time, settled, dropped, encode(content_digest, 'hex') AS digest,
    payload
FROM decision
WHERE topic = %(topic)s AND partition = %(partition)s AND log_offset = %(offset)s AND index_in_message = %(index)s

-- name: decision_changes
-- What became of a decision, oldest first.
SELECT changed_at, from_outcome, from_reason, to_outcome, to_reason, said_by, note
FROM decision_change
WHERE log_id = ANY((SELECT earlier_ids || log_id FROM log WHERE topic = %(topic)s)::uuid[])
    AND partition = %(partition)s AND log_offset = %(offset)s AND index_in_message = %(index)s
ORDER BY change_number

-- name: trial_balance
-- Every ledger account with its debits, credits and balance; per currency the balances sum to zero.
SELECT a.name, a.kind, a.account_id AS account, a.product, a.currency,
    coalesce(sum(e.amount) FILTER (WHERE e.amount > 0), 0) AS debit,
    coalesce(-sum(e.amount) FILTER (WHERE e.amount < 0), 0) AS credit,
    coalesce(sum(e.amount), 0) AS balance,
    coalesce(sum(sum(e.amount)) OVER (PARTITION BY a.currency), 0) AS currency_balance
FROM ledger_account a LEFT JOIN ledger_entry e USING (ledger_account_id)
GROUP BY a.ledger_account_id, a.name, a.kind, a.account_id, a.product, a.currency
ORDER BY a.currency COLLATE "C", a.kind COLLATE "C", a.name COLLATE "C"

-- name: known_logs
-- Those set aside stand under names of their own, after the topic they were the log of.
SELECT topic, log_id::text, kafka_topic_id, partition_count, adopted_at, set_aside_from IS NULL AS is_read
FROM log ORDER BY coalesce(set_aside_from, topic) COLLATE "C", number DESC

-- name: stage_offsets
-- Of logs that are read; where a stage came to in a lost one is history.
SELECT stage, topic, partition, offset_next, updated_at FROM consumer_offset JOIN log USING (topic)
WHERE set_aside_from IS NULL
ORDER BY stage COLLATE "C", topic COLLATE "C", partition

-- name: tallies
SELECT topic, partition, received, counted, duplicate, conflict, quarantined, parked, ignored, control, handed_over
FROM partition_tally
WHERE topic = %(topic)s
ORDER BY partition

-- name: work_left
-- What is known to be not yet in the books.
SELECT
    (SELECT count(*) FROM dirty_mark) AS dirty_marks,
    (SELECT count(*) FROM dirty_item) AS dirty_items,
    (SELECT count(*) FROM billed_item) AS billed_items,
    (SELECT count(*) FROM usage_total t LEFT JOIN booked_charge c USING (billed_item_id)
     WHERE (c.generation, c.revision) IS DISTINCT FROM (t.generation, t.revision)) AS unbooked_totals,
    (SELECT count(*) FROM booked_charge WHERE outcome <> 'rated') AS unrated_charges,
    (SELECT count(*) FROM decision WHERE NOT settled AND outcome IN ('quarantined', 'parked', 'conflict'))
        AS open_decisions,
    (SELECT count(*) FROM decision WHERE NOT settled AND outcome = 'duplicate') AS unsettled_duplicates,
    (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM lost_number, unnest(numbers - found) AS r)
        AS events_without_evidence,
    -- Numbers that their sources gave up, and that did not come all the same.
    (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint
     FROM identity_epoch, unnest(dropped - counted - quarantined - parked) AS r) AS events_declared_lost

-- name: last_invoices
-- Issued invoices by month of service, newest first.
SELECT to_char(i.period_start AT TIME ZONE a.time_zone, 'YYYY-MM') AS period, i.state, i.currency, count(*) AS count,
    sum(i.total_minor)::bigint AS total_minor
FROM invoice i JOIN billing_account a USING (account_id)
GROUP BY 1, 2, 3
ORDER BY 1 DESC, 2, 3
LIMIT %(limit)s

-- name: clock
SELECT clock_timestamp() AS now

-- name: role
-- Whether the login may act as the application, and whether the books can be changed by it.
SELECT pg_has_role(session_user, 'rackmeter_app', 'MEMBER') AS is_member,
    has_table_privilege('rackmeter_app', 'ledger_entry', 'UPDATE') AS may_change_books
