-- PostgreSQL statements: the facts the pipeline left, read in one snapshot.

-- name: logs
-- Every log the topic has been, the present one last. A later log's partitions are numbered on after the earlier ones',
-- here and in what follows: number * partition_count + partition.
SELECT number, ARRAY(SELECT id::text FROM unnest(log_ids) AS id), partition_count, known_number.last
FROM log_history, known_number WHERE topic = %(topic)s ORDER BY number

-- name: offsets
-- Where aggregate and archive stand, or came to, and where they began.
SELECT o.stage, h.number * h.partition_count + o.partition, o.offset_first, o.offset_next
FROM log_history h JOIN consumer_offset o ON o.topic = h.name
WHERE h.topic = %(topic)s AND o.stage IN ('aggregate', 'archive')

-- name: manifest
SELECT h.number * h.partition_count + f.partition, f.offset_first, f.offset_next, f.row_count, f.digest, f.path, h.number
FROM log_history h JOIN archive_file f ON f.topic = h.topic AND f.log_id = ANY (h.log_ids)
WHERE h.topic = %(topic)s ORDER BY 1, f.offset_first

-- name: tallies
SELECT h.number * h.partition_count + t.partition, t.received, t.counted, t.duplicate, t.conflict, t.quarantined,
    t.parked, t.ignored, t.control, t.handed_over
FROM log_history h JOIN partition_tally t ON t.topic = h.name WHERE h.topic = %(topic)s ORDER BY 1

-- name: lost_numbers
-- What a log took away with it: numbers counted from it that were never archived, as half-open spans.
SELECT h.number, l.source, l.epoch, lower(span), upper(span)
FROM log_history h JOIN lost_number l ON l.log = h.name, unnest(l.numbers) AS span
WHERE h.topic = %(topic)s ORDER BY 1, 2, 3, 4

-- name: decisions
-- Copied out: may be many. What an operator dropped was not superseded by anything.
COPY (
    SELECT h.number * h.partition_count + d.partition, d.log_offset, d.index_in_message, d.outcome, d.reason,
        d.settled AND NOT d.dropped,
        EXISTS (
            SELECT FROM decision_change c
            WHERE c.log_id = ANY(h.log_ids) AND c.partition = d.partition AND c.log_offset = d.log_offset
                AND c.index_in_message = d.index_in_message AND c.from_outcome = 'parked' AND c.to_outcome <> 'dropped')
    FROM log_history h JOIN decision d ON d.topic = h.name WHERE h.topic = %(topic)s
) TO STDOUT (FORMAT csv)

-- name: unarchived_decisions
-- What was decided about events that were lost with their log before they were archived; what was counted is known by
-- its number.
COPY (
    SELECT h.number * h.partition_count + d.partition, d.outcome, d.source, d.event_id
    FROM log_history h JOIN decision d ON d.topic = h.name
    LEFT JOIN consumer_offset o ON o.stage = 'archive' AND o.topic = h.name AND o.partition = d.partition
    WHERE h.topic = %(topic)s AND h.name <> h.topic AND d.log_offset >= coalesce(o.offset_next, 0)
        AND d.outcome <> 'counted'
) TO STDOUT (FORMAT csv)

-- name: buckets
-- Copied out: may be many. Quantity in the meter's unit, as text.
COPY (
    SELECT b.series_id, (extract(epoch FROM b.slot_start) * 1000000)::bigint, b.quantity::text
    FROM usage_bucket b WHERE b.slot_start >= %(from)s AND b.slot_start < %(to)s
) TO STDOUT (FORMAT csv)

-- name: days
COPY (
    SELECT d.series_id, (extract(epoch FROM d.day) * 1000000)::bigint, d.quantity::text
    FROM usage_day d WHERE d.day >= %(from)s AND d.day < %(to)s
) TO STDOUT (FORMAT csv)

-- name: sample_days
-- Samples by stream and day: how many, and two sums of their digests. Copying each of them out takes seconds.
SELECT sample_stream_id, at_us / 86400000000 * 86400000000, count(*),
    sum(('x' || lpad(left(digest, 15), 16, '0'))::bit(64)::bigint)::text,
    sum(('x' || lpad(right(digest, 15), 16, '0'))::bit(64)::bigint)::text
FROM (
    SELECT sample_stream_id, at_us,
        md5(at_us || '|' || epoch || '-' || lpad(number::text, 12, '0') || '|' || readings::text) AS digest
    FROM (
        SELECT sample_stream_id, (extract(epoch FROM occurred_at) * 1000000)::bigint AS at_us, epoch, number, readings
        FROM usage_sample WHERE occurred_at >= %(from)s AND occurred_at < %(to)s OFFSET 0) AS s OFFSET 0) AS digested
GROUP BY 1, 2

-- name: sample_streams
SELECT sample_stream_id, source, subject, event_type FROM sample_stream

-- name: retention_edge
-- Slots before the first may be gone, events before the second may be parked for it; 0 where nothing was dropped.
SELECT coalesce(max(extract(epoch FROM dropped_before) * 1000000), 0)::bigint,
    coalesce(max(extract(epoch FROM edge_at) * 1000000), 0)::bigint
FROM retention_edge

-- name: series
SELECT series_id, meter_version_id, source, subject FROM series

-- name: meters
SELECT meter_version_id, meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max,
    effective_from, known_number
FROM meter_version

-- name: ignore_rules
SELECT event_type, known_number FROM ignore_rule

-- name: prices
SELECT price_version_id, price, version, model, product, currency, unit, base_units::text, parameters, known_number
FROM price_version

-- name: bindings
SELECT known_number, subscription_id, item, meter, price_version_id, effective_from FROM price_binding

-- name: subscriptions
SELECT s.subscription_id, s.account_id, s.starts_at, s.known_number, a.time_zone, a.currency
FROM subscription s JOIN billing_account a USING (account_id)

-- name: subscription_ends
SELECT subscription_id, known_number, ends_at FROM subscription_end

-- name: assignments
SELECT known_number, subject, subscription_id, valid_from, valid_to FROM assignment

-- name: invoice_ids
-- One invoice by number or id, those of a period (its month in the account's own zone), or all.
SELECT invoice_id FROM invoice i JOIN billing_account a USING (account_id)
WHERE (%(invoice)s::text IS NULL OR i.number = %(invoice)s OR i.invoice_id = %(invoice)s)
    AND (%(month)s::text IS NULL OR to_char(i.period_start AT TIME ZONE a.time_zone, 'YYYY-MM') = %(month)s)
ORDER BY i.period_start, i.account_id

-- name: invoices
SELECT i.invoice_id, i.account_id, i.period_start, i.period_end, i.currency, i.state, i.cut, i.total_minor, i.seller,
    i.number, i.document, i.document_digest, a.time_zone, i.issued_on, i.due_on, i.proof, p.state, p.period_end
FROM invoice i JOIN billing_account a USING (account_id)
LEFT JOIN billing_period p ON p.account_id = i.account_id AND p.period_start = i.period_start
WHERE i.invoice_id = ANY (%(invoice_ids)s::text[])
ORDER BY i.period_start, i.account_id

-- name: lines
SELECT invoice_id, line_number, subscription_id, item, product, service_period_start, service_period_end, subject,
    description, quantity, amount_exact, amount_minor, breakdown
FROM invoice_line WHERE invoice_id = ANY (%(invoice_ids)s::text[]) ORDER BY invoice_id, line_number

-- name: taken_before
-- What older invoices of the same accounts took, by item, product and service period.
SELECT i.account_id, i.period_start, l.subscription_id, l.item, l.subject, l.service_period_start, l.product,
    sum(l.amount_exact)
FROM invoice_line l JOIN invoice i USING (invoice_id)
WHERE i.account_id = ANY (%(account_ids)s::text[])
GROUP BY 1, 2, 3, 4, 5, 6, 7

-- name: entries
-- The entries each line took, with what they were posted for.
SELECT x.invoice_id, x.line_number, e.ledger_entry_id, e.ledger_transaction_id, e.amount, e.currency, e.account_id,
    e.period_start, a.kind, a.account_id, b.subscription_id, b.item, b.subject, b.period_start
FROM invoice_entry x
JOIN ledger_entry e USING (ledger_entry_id)
JOIN ledger_account a USING (ledger_account_id)
JOIN ledger_transaction t USING (ledger_transaction_id)
LEFT JOIN billed_item b USING (billed_item_id)
WHERE x.invoice_id = ANY (%(invoice_ids)s::text[])
ORDER BY x.invoice_id, x.line_number, e.ledger_entry_id

-- name: transactions
-- Every entry of the transactions the invoices took from or posted.
SELECT t.ledger_transaction_id, t.key, a.kind, a.account_id, a.product, e.currency, e.amount, e.account_id,
    e.period_start
FROM ledger_transaction t
JOIN ledger_entry e USING (ledger_transaction_id)
JOIN ledger_account a USING (ledger_account_id)
WHERE t.ledger_transaction_id = ANY (%(transaction_ids)s::bigint[]) OR t.key = ANY (%(keys)s::text[])
ORDER BY t.ledger_transaction_id, e.ledger_entry_id

-- name: imbalances
-- Transactions of the whole ledger that do not sum to zero.
SELECT ledger_transaction_id, currency, sum(amount) FROM ledger_entry
GROUP BY ledger_transaction_id, currency HAVING sum(amount) <> 0 ORDER BY 1 LIMIT 100

-- name: for_nothing
-- Transactions of the whole ledger that no item, issued invoice or payment that came explains.
SELECT t.ledger_transaction_id, t.key FROM ledger_transaction t
WHERE NOT CASE t.kind
    WHEN 'usage' THEN EXISTS (
        SELECT FROM billed_item b WHERE b.billed_item_id = t.billed_item_id
            AND t.key ~ ('^usage:' || b.billed_item_id || ':[0-9]+:' || t.revision || '$'))
    WHEN 'invoice' THEN t.billed_item_id IS NULL AND EXISTS (
        SELECT FROM invoice i WHERE t.key = 'invoice:' || i.invoice_id AND i.state = 'issued')
    WHEN 'payment' THEN t.billed_item_id IS NULL AND EXISTS (
        SELECT FROM payment_attempt p WHERE t.key = 'payment:' || p.idempotency_key AND p.state = 'succeeded')
    ELSE false END
ORDER BY 1 LIMIT 100

-- name: misplaced
-- Entries of usage, of the whole ledger, that are not where their item belongs.
SELECT e.ledger_entry_id, t.key
FROM ledger_transaction t
JOIN billed_item b USING (billed_item_id)
JOIN subscription s USING (subscription_id)
JOIN ledger_entry e USING (ledger_transaction_id)
JOIN ledger_account a USING (ledger_account_id)
WHERE t.kind = 'usage' AND (a.kind NOT IN ('unbilled', 'revenue') OR a.currency <> e.currency
    OR a.kind = 'unbilled' AND a.account_id <> s.account_id OR b.account_id <> s.account_id
    OR e.account_id IS DISTINCT FROM s.account_id OR e.period_start IS DISTINCT FROM b.period_start)
ORDER BY 1 LIMIT 100

-- name: booked
-- Items of accounts and periods with what is booked for them and their totals; whether a total is about to change.
SELECT b.billed_item_id, b.account_id, b.subscription_id, b.item, b.subject, b.period_start, b.period_end, c.generation,
    c.revision, c.outcome, c.quantity, c.amounts, c.breakdown, t.generation, t.revision, t.segments,
    EXISTS (SELECT FROM dirty_mark) OR EXISTS (SELECT FROM dirty_item d WHERE d.billed_item_id = b.billed_item_id)
FROM billed_item b LEFT JOIN booked_charge c USING (billed_item_id) LEFT JOIN usage_total t USING (billed_item_id)
WHERE b.account_id = ANY (%(account_ids)s::text[]) AND b.period_start = ANY (%(period_starts)s::timestamptz[])
ORDER BY b.billed_item_id

-- name: posted
-- What is posted for items, taken by an invoice or not.
SELECT t.billed_item_id, a.kind, coalesce(a.product, ''), e.currency, sum(e.amount)
FROM ledger_transaction t
JOIN ledger_entry e USING (ledger_transaction_id)
JOIN ledger_account a USING (ledger_account_id)
WHERE t.kind = 'usage' AND t.billed_item_id = ANY (%(billed_item_ids)s::bigint[])
GROUP BY 1, 2, 3, 4

-- name: attempts
-- Payment attempts with what is posted for them to the account's receivable.
SELECT p.invoice_id, p.attempt_number, p.gateway, p.idempotency_key, p.amount_minor, p.currency, p.state, p.reference, (
        SELECT coalesce(-sum(e.amount), 0)
        FROM ledger_transaction t
        JOIN ledger_entry e USING (ledger_transaction_id)
        JOIN ledger_account a USING (ledger_account_id)
        WHERE t.key = 'payment:' || p.idempotency_key AND a.kind = 'receivable' AND a.account_id = i.account_id
            AND e.account_id = i.account_id AND e.currency = p.currency)
FROM payment_attempt p JOIN invoice i USING (invoice_id)
WHERE p.invoice_id = ANY (%(invoice_ids)s::text[])
ORDER BY 1, 2

-- name: numbers
-- Every number given, with the series it must stand in.
SELECT i.seller, s.number_prefix, i.number, to_char(i.issued_on, 'YYYY') FROM invoice i JOIN seller s USING (seller)
WHERE i.number IS NOT NULL ORDER BY i.seller, i.number

-- name: number_series
SELECT seller, series, number_next FROM number_series ORDER BY seller, series
