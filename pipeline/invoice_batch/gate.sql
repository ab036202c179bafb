-- The gate's facts about one account and period. Read-only; all of them in one snapshot of the caller's.

-- name: expectations
-- What must have been heard: servers the account holds in the period x meters bound to them x sources that speak for them.
-- Who holds a server is the assignment with the highest known number; the same for a binding's price.
WITH asked AS (
    SELECT %(account_id)s::text AS account_id, tstzrange(%(period_start)s, %(period_end)s) AS period
),
held AS (
    SELECT a.subject, a.subscription_id,
        (tstzmultirange(tstzrange(a.valid_from, a.valid_to)) - coalesce((
            SELECT range_agg(tstzrange(later.valid_from, later.valid_to)) FROM assignment later
            WHERE later.subject = a.subject AND later.known_number > a.known_number), '{}'::tstzmultirange))
        * tstzmultirange(tstzrange(s.starts_at, coalesce(s.ends_at, 'infinity')) * asked.period) AS span
    FROM asked
    JOIN subscription_span s USING (account_id)
    JOIN assignment a USING (subscription_id)
),
binding AS (
    SELECT subscription_id, item, meter, tstzrange(effective_from, lead(effective_from) OVER (
        PARTITION BY subscription_id, item ORDER BY effective_from)) AS span
    FROM (
        SELECT DISTINCT ON (subscription_id, item, effective_from) subscription_id, item, meter, effective_from
        FROM price_binding ORDER BY subscription_id, item, effective_from, known_number DESC
    ) latest
),
meter AS (
    SELECT meter, event_type,
        tstzrange(effective_from, lead(effective_from) OVER (PARTITION BY meter ORDER BY effective_from, version)) AS span
    FROM meter_version
),
wanted AS (
    SELECT held.subject, binding.meter, meter.event_type,
        max(upper(held.span * tstzmultirange(binding.span * meter.span))) AS until
    FROM held JOIN binding USING (subscription_id) JOIN meter USING (meter)
    WHERE held.span && (binding.span * meter.span)
    GROUP BY held.subject, binding.meter, meter.event_type
),
speaker AS (
    SELECT DISTINCT w.subject, w.event_type, s.source
    FROM wanted w JOIN source_subject s USING (subject, event_type)
)
SELECT w.subject, w.meter, w.until, speaker.source, heard.complete_until, coalesce(heard.holed, false) AS holed
FROM wanted w LEFT JOIN speaker USING (subject, event_type)
LEFT JOIN LATERAL (
    SELECT max(c.complete_until) FILTER (WHERE c.has_no_hole) AS complete_until, NOT bool_or(c.has_no_hole) AS holed
    FROM source_complete c WHERE c.source = speaker.source AND c.subject IN ('', w.subject)
) AS heard ON true
ORDER BY w.subject, w.meter, speaker.source;

-- name: open_decisions
-- What nobody has settled about these servers, also where only the sender is known.
-- A duplicate may hide a conflict with any event, so its own time does not excuse it. Nothing happened later than the log
-- took it, whatever it claims; its time may be what it was quarantined for.
SELECT d.outcome, d.reason, d.subject, d.source, count(*) AS count
FROM decision d
WHERE NOT d.settled AND d.outcome IN ('duplicate', 'conflict', 'quarantined', 'parked')
    AND (d.subject = ANY(%(subjects)s::text[])
        OR d.subject IS NULL AND d.source IN (
            SELECT source FROM source_subject WHERE subject = ANY(%(subjects)s::text[])))
    AND (d.outcome IN ('duplicate', 'conflict') OR d.occurred_at IS NULL
        OR least(d.occurred_at, d.log_time) < %(period_end)s)
GROUP BY d.outcome, d.reason, d.subject, d.source
ORDER BY d.outcome, d.reason, d.subject, d.source;

-- name: lost_events
-- Events that were counted, and lost with their log before they were archived: nothing proves them until they are sent
-- again. When they happened is not known, so no period is excused.
SELECT l.source, sum(upper(r) - lower(r))::bigint AS count
FROM lost_number l CROSS JOIN LATERAL unnest(l.numbers - l.found) AS r
WHERE l.source IN (SELECT source FROM source_subject WHERE subject = ANY(%(subjects)s::text[]))
GROUP BY l.source
ORDER BY l.source;

-- name: dirty_subjects
-- Changes no total has taken up, of any server the account ever had or of its subscriptions, up to the period's end.
SELECT DISTINCT coalesce(m.subject, '') AS subject
FROM dirty_mark m
WHERE m.time_from < %(period_end)s
    AND (m.subscription_id IN (SELECT subscription_id FROM subscription WHERE account_id = %(account_id)s)
        OR m.subscription_id IS NULL AND m.subject IN (
            SELECT a.subject FROM assignment a JOIN subscription s USING (subscription_id)
            WHERE s.account_id = %(account_id)s))
ORDER BY 1;

-- name: dirty_item_count
SELECT count(*) FROM dirty_item JOIN billed_item i USING (billed_item_id)
WHERE i.account_id = %(account_id)s AND i.period_start <= %(period_start)s;

-- name: unbooked_items
-- Items of this and older periods whose total is missing, not booked at its revision, or not rated.
SELECT i.item, i.subject, t.revision AS total_revision, c.revision AS booked_revision, c.outcome,
    coalesce(c.reason, '') AS reason
FROM billed_item i LEFT JOIN usage_total t USING (billed_item_id) LEFT JOIN booked_charge c USING (billed_item_id)
WHERE i.account_id = %(account_id)s AND i.period_start <= %(period_start)s
    AND (t.revision IS NULL OR c.revision IS DISTINCT FROM t.revision OR c.generation IS DISTINCT FROM t.generation
        OR c.outcome <> 'rated')
ORDER BY i.period_start, i.item, i.subject;

-- name: partition_stands
SELECT p.partition, aggregate.offset_next AS aggregate_next, archive.offset_next AS archive_next
FROM log
CROSS JOIN LATERAL generate_series(0, log.partition_count - 1) AS p (partition)
LEFT JOIN consumer_offset aggregate ON aggregate.stage = 'aggregate' AND aggregate.topic = log.topic
    AND aggregate.partition = p.partition AND aggregate.log_id = log.log_id
LEFT JOIN consumer_offset archive ON archive.stage = 'archive' AND archive.topic = log.topic
    AND archive.partition = p.partition AND archive.log_id = log.log_id
WHERE log.topic = %(topic)s
ORDER BY p.partition;

-- name: earlier_open_periods
-- Older periods of the account that are being closed, or that hold postings no invoice has taken and never closed.
SELECT period_start FROM billing_period
WHERE account_id = %(account_id)s AND period_start < %(period_start)s AND state <> 'closed'
UNION
SELECT i.period_start
FROM billed_item i
LEFT JOIN billing_period b ON b.account_id = i.account_id AND b.period_start = i.period_start
WHERE i.account_id = %(account_id)s AND i.period_start < %(period_start)s AND b.state IS NULL
    AND EXISTS (
        SELECT FROM ledger_transaction t
        JOIN ledger_entry e USING (ledger_transaction_id)
        JOIN ledger_account a USING (ledger_account_id)
        LEFT JOIN invoice_entry taken USING (ledger_entry_id)
        WHERE t.billed_item_id = i.billed_item_id AND a.kind = 'unbilled' AND taken.ledger_entry_id IS NULL)
ORDER BY 1;

-- name: other_currencies
-- Currencies of postings for this and older periods that are not the account's own.
SELECT DISTINCT e.currency
FROM ledger_account a JOIN ledger_entry e USING (ledger_account_id)
JOIN ledger_transaction t USING (ledger_transaction_id)
LEFT JOIN invoice_entry taken USING (ledger_entry_id)
WHERE a.kind = 'unbilled' AND a.account_id = %(account_id)s AND t.kind = 'usage'
    AND e.period_start <= %(period_start)s AND taken.ledger_entry_id IS NULL AND e.currency <> %(currency)s
ORDER BY 1;
