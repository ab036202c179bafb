-- name: accounts
-- Accounts in order of id, with the first instant they could owe anything for.
SELECT b.account_id, b.currency, b.time_zone, b.seller, (
        SELECT min(at) FROM (
            SELECT greatest(s.starts_at, a.valid_from) AS at
            FROM subscription s JOIN assignment a USING (subscription_id) WHERE s.account_id = b.account_id
            UNION ALL SELECT i.period_start FROM billed_item i WHERE i.account_id = b.account_id) first_seen
    ) AS first_at
FROM billing_account b
WHERE %(account_ids)s::text[] IS NULL OR b.account_id = ANY(%(account_ids)s::text[])
ORDER BY b.account_id;

-- name: lock_account
-- Exclusive, for the session: waits for the ledger sink's shared holders, and the sink waits for us.
SELECT pg_advisory_lock(hashtextextended('account:' || %(account_id)s::text, 0));

-- name: unlock_account
SELECT pg_advisory_unlock(hashtextextended('account:' || %(account_id)s::text, 0));

-- name: period_state
SELECT state FROM billing_period WHERE account_id = %(account_id)s AND period_start = %(period_start)s;

-- name: set_period_state
INSERT INTO billing_period (account_id, period_start, period_end, state)
VALUES (%(account_id)s, %(period_start)s, %(period_end)s, %(state)s)
ON CONFLICT (account_id, period_start) DO UPDATE SET state = excluded.state, changed_at = now();

-- name: cut_position
-- Where everything stands in this snapshot; no row where the log was never adopted.
SELECT log.log_id::text, installation.generation, known_number.last AS known_number, (
        SELECT coalesce(jsonb_object_agg(o.partition::text, o.offset_next), '{}')
        FROM consumer_offset o WHERE o.stage = 'aggregate' AND o.topic = log.topic AND o.log_id = log.log_id
    ) AS offsets
FROM log, installation, known_number WHERE log.topic = %(topic)s;

-- name: catalogue_meter_rows
SELECT 'meter', meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max,
    to_char(effective_from, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM meter_version WHERE known_number <= %(known_number)s ORDER BY meter COLLATE "C", version;

-- name: catalogue_price_rows
SELECT 'price', price, version, model, product, currency, unit, base_units::text, parameters
FROM price_version WHERE known_number <= %(known_number)s ORDER BY price COLLATE "C", version;

-- name: catalogue_binding_rows
SELECT 'binding', b.subscription_id, b.item, b.meter, p.price, p.version,
    to_char(b.effective_from, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), b.known_number
FROM price_binding b JOIN price_version p USING (price_version_id)
WHERE b.known_number <= %(known_number)s
ORDER BY b.subscription_id COLLATE "C", b.item COLLATE "C", b.effective_from, b.known_number;

-- name: catalogue_subscription_rows
SELECT 'subscription', subscription_id, account_id, to_char(starts_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    to_char((
        SELECT e.ends_at FROM subscription_end e
        WHERE e.subscription_id = subscription.subscription_id AND e.known_number <= %(known_number)s
        ORDER BY e.known_number DESC LIMIT 1), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM subscription WHERE known_number <= %(known_number)s ORDER BY subscription_id COLLATE "C";

-- name: assignment_rows
SELECT known_number, subject, subscription_id, to_char(valid_from, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    CASE valid_to WHEN 'infinity' THEN 'infinity' ELSE to_char(valid_to, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END
FROM assignment WHERE known_number <= %(known_number)s ORDER BY known_number;

-- name: manifest_rows
-- Files that begin below the cut; `offsets` is the cut's own: partition -> next offset. Of logs that were set aside,
-- those that begin below where aggregate came; a later log's partitions are numbered on after the earlier ones'.
SELECT h.number * h.partition_count + f.partition, f.offset_first, f.offset_next, f.row_count, f.digest
FROM log_history h
JOIN archive_file f ON f.topic = h.topic AND f.log_id = ANY (h.log_ids)
LEFT JOIN consumer_offset o ON o.stage = 'aggregate' AND o.topic = h.name AND o.partition = f.partition
WHERE h.topic = %(topic)s AND f.offset_first < coalesce(
    CASE WHEN h.name = h.topic THEN (%(offsets)s::jsonb ->> f.partition::text)::bigint ELSE o.offset_next END, 0)
ORDER BY 1, f.offset_first;

-- name: untaken_postings
-- Entries of usage on the account's unbilled accounts, up to the period, that no invoice has taken. An unbilled account
-- has no product; the entry's counterpart on a revenue account of the same transaction and amount names it.
WITH entry AS (
    SELECT e.ledger_entry_id, e.ledger_transaction_id, e.currency, e.amount, t.billed_item_id, row_number() OVER (
        PARTITION BY e.ledger_transaction_id, e.currency, e.amount ORDER BY e.ledger_entry_id) AS place
    FROM ledger_account a
    JOIN ledger_entry e USING (ledger_account_id)
    JOIN ledger_transaction t USING (ledger_transaction_id)
    WHERE a.kind = 'unbilled' AND a.account_id = %(account_id)s AND t.kind = 'usage'
        AND e.period_start <= %(period_start)s
),
counterpart AS (
    SELECT e.ledger_transaction_id, e.currency, -e.amount AS amount, a.product, row_number() OVER (
        PARTITION BY e.ledger_transaction_id, e.currency, e.amount ORDER BY e.ledger_entry_id) AS place
    FROM ledger_entry e JOIN ledger_account a USING (ledger_account_id)
    WHERE a.kind = 'revenue' AND e.ledger_transaction_id IN (SELECT ledger_transaction_id FROM entry)
)
SELECT entry.ledger_entry_id, entry.billed_item_id, counterpart.product, entry.currency, entry.amount
FROM entry
LEFT JOIN counterpart USING (ledger_transaction_id, currency, amount, place)
LEFT JOIN invoice_entry taken USING (ledger_entry_id)
WHERE taken.ledger_entry_id IS NULL
ORDER BY entry.ledger_entry_id;

-- name: item_charges
-- The period's items, and older ones by id; segments with the product of their price.
SELECT i.billed_item_id, i.subscription_id, i.item, i.subject, i.period_start, i.period_end, t.revision, (
        SELECT coalesce(jsonb_agg(jsonb_build_object('price_version_id', p.price_version_id, 'product', p.product,
            'quantity', s.value ->> 'quantity') ORDER BY s.place), '[]')
        FROM jsonb_array_elements(t.segments) WITH ORDINALITY AS s (value, place)
        JOIN price_version p ON p.price_version_id = (s.value ->> 'price_version_id')::integer
    ) AS segments, c.breakdown
FROM billed_item i JOIN usage_total t USING (billed_item_id) JOIN booked_charge c USING (billed_item_id)
WHERE i.account_id = %(account_id)s AND i.period_start = %(period_start)s
    OR i.billed_item_id = ANY(%(billed_item_ids)s::bigint[])
ORDER BY i.billed_item_id;

-- name: insert_invoice
INSERT INTO invoice (invoice_id, account_id, period_start, period_end, currency, cut, total_minor, seller)
VALUES (%(invoice_id)s, %(account_id)s, %(period_start)s, %(period_end)s, %(currency)s, %(cut)s, %(total_minor)s,
    %(seller)s);

-- name: insert_line
INSERT INTO invoice_line (invoice_id, line_number, subscription_id, item, product, service_period_start,
    service_period_end, subject, description, quantity, amount_exact, amount_minor, breakdown)
VALUES (%(invoice_id)s, %(line_number)s, %(subscription_id)s, %(item)s, %(product)s, %(service_period_start)s,
    %(service_period_end)s, %(subject)s, %(description)s, %(quantity)s, %(amount_exact)s, %(amount_minor)s,
    %(breakdown)s);

-- name: insert_entry
INSERT INTO invoice_entry (ledger_entry_id, invoice_id, line_number)
VALUES (%(ledger_entry_id)s, %(invoice_id)s, %(line_number)s);

-- name: drafts
SELECT invoice_id, account_id, period_start, period_end, created_at, currency, total_minor
FROM invoice WHERE state = 'draft' AND invoice_id = ANY(%(invoice_ids)s::text[])
ORDER BY period_start, account_id COLLATE "C";

-- name: record_proof
-- A draft that was withdrawn and cut anew has the same id; when it was made tells them apart.
UPDATE invoice SET state = 'proven', proof = %(report)s, proven_at = now()
WHERE invoice_id = %(invoice_id)s AND created_at = %(created_at)s AND state = 'draft';

-- name: lock_draft
SELECT cut FROM invoice
WHERE invoice_id = %(invoice_id)s AND created_at = %(created_at)s AND state = 'draft' FOR UPDATE;

-- name: delete_entries
DELETE FROM invoice_entry WHERE invoice_id = %(invoice_id)s;

-- name: delete_lines
DELETE FROM invoice_line WHERE invoice_id = %(invoice_id)s;

-- name: delete_invoice
DELETE FROM invoice WHERE invoice_id = %(invoice_id)s;

-- name: insert_proof_failure
INSERT INTO proof_failure (invoice_id, account_id, period_start, differences, cut)
VALUES (%(invoice_id)s, %(account_id)s, %(period_start)s, %(differences)s, %(cut)s);

-- name: sellers_to_number
SELECT DISTINCT i.seller, s.time_zone FROM invoice i JOIN seller s USING (seller) WHERE i.state = 'proven' ORDER BY 1;

-- name: lock_proven
-- Invoices of the seller that wait for a number, in the order they get it. A second closer waits here, then finds none.
SELECT invoice_id FROM invoice WHERE seller = %(seller)s AND state = 'proven'
ORDER BY period_start, account_id COLLATE "C" LIMIT %(limit)s FOR UPDATE;

-- name: lock_begun
-- Invoices the journal has a document of and the database no number for; before the series, as in lock_proven.
SELECT invoice_id FROM invoice
WHERE seller = %(seller)s AND state = 'proven' AND invoice_id = ANY(%(invoice_ids)s::text[])
ORDER BY period_start, account_id COLLATE "C" FOR UPDATE;

-- name: series_next
SELECT number_next FROM number_series WHERE seller = %(seller)s AND series = %(series)s;

-- name: begin_series
INSERT INTO number_series (seller, series) VALUES (%(seller)s, %(series)s) ON CONFLICT DO NOTHING;

-- name: lock_series
-- Last in the order of locks; held to the commit, so that a number not used is a number not given.
SELECT number_next FROM number_series WHERE seller = %(seller)s AND series = %(series)s FOR UPDATE;

-- name: advance_series
UPDATE number_series SET number_next = %(number_next)s WHERE seller = %(seller)s AND series = %(series)s;

-- name: invoice_header
SELECT i.invoice_id, i.account_id, i.period_start, i.period_end, i.currency, i.state, i.cut, i.total_minor, i.proof,
    b.name AS buyer_name, b.address AS buyer_address, b.time_zone, b.payment_gateway, b.payment_terms_days,
    s.seller, s.name AS seller_name, s.address AS seller_address, s.tax_id, s.bank_account, s.number_prefix
FROM invoice i JOIN billing_account b USING (account_id) JOIN seller s ON s.seller = i.seller
WHERE i.invoice_id = %(invoice_id)s;

-- name: invoice_lines
-- Lines with the unit of their meter as known at the cut, and what older invoices charged for the same.
SELECT l.line_number, l.subscription_id, l.item, l.product, l.service_period_start, l.service_period_end, l.subject,
    l.description, l.quantity, l.amount_exact, l.amount_minor, l.breakdown, (
        SELECT m.unit FROM price_binding b JOIN meter_version m USING (meter)
        WHERE b.subscription_id = l.subscription_id AND b.item = l.item
            AND b.known_number <= (i.cut ->> 'known_number')::bigint
            AND m.known_number <= (i.cut ->> 'known_number')::bigint
        ORDER BY b.known_number DESC, b.effective_from DESC, m.version DESC LIMIT 1
    ) AS unit, (
        SELECT coalesce(sum(older.amount_exact), 0) FROM invoice_line older JOIN invoice o USING (invoice_id)
        WHERE o.account_id = i.account_id AND o.period_start < i.period_start
            AND older.subscription_id = l.subscription_id AND older.item = l.item AND older.product = l.product
            AND older.subject = l.subject AND older.service_period_start = l.service_period_start
    ) AS charged_before
FROM invoice i JOIN invoice_line l USING (invoice_id)
WHERE i.invoice_id = %(invoice_id)s ORDER BY l.line_number;

-- name: taken_sums
-- What the invoice's lines took, by unbilled account and service period.
SELECT e.ledger_account_id, e.period_start, sum(e.amount) AS amount
FROM invoice_entry taken JOIN ledger_entry e USING (ledger_entry_id)
WHERE taken.invoice_id = %(invoice_id)s GROUP BY 1, 2 ORDER BY 1, 2;

-- name: ensure_ledger_accounts
INSERT INTO ledger_account (name, kind, account_id, currency) VALUES
    ('receivable:' || %(account_id)s::text || ':' || %(currency)s::text, 'receivable', %(account_id)s, %(currency)s),
    ('rounding:' || %(currency)s::text, 'rounding', NULL, %(currency)s)
ON CONFLICT (name) DO NOTHING;

-- name: invoice_ledger_accounts
SELECT
    (SELECT ledger_account_id FROM ledger_account
        WHERE name = 'receivable:' || %(account_id)s::text || ':' || %(currency)s::text) AS receivable,
    (SELECT ledger_account_id FROM ledger_account WHERE name = 'rounding:' || %(currency)s::text) AS rounding;

-- name: insert_ledger_transaction
INSERT INTO ledger_transaction (key, kind) VALUES (%(key)s, 'invoice') RETURNING ledger_transaction_id;

-- name: insert_ledger_entries
-- One statement for all entries: the database balances each transaction by statement.
INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency, account_id, period_start)
SELECT %(ledger_transaction_id)s, entry.ledger_account_id, entry.amount, %(currency)s, %(account_id)s,
    entry.period_start
FROM unnest(%(ledger_account_ids)s::bigint[], %(amounts)s::numeric[], %(period_starts)s::timestamptz[])
    AS entry (ledger_account_id, amount, period_start);

-- name: issue_invoice
UPDATE invoice SET state = 'issued', number = %(number)s, issued_on = %(issued_on)s, due_on = %(due_on)s,
    document = %(document)s, document_digest = %(digest)s
WHERE invoice_id = %(invoice_id)s AND state = 'proven';

-- name: invoices
-- Invoices of accounts, newest period last; all of them where no ids are given.
SELECT invoice_id, account_id, period_start, currency, state, total_minor, number, issued_on, due_on
FROM invoice WHERE %(invoice_ids)s::text[] IS NULL OR invoice_id = ANY(%(invoice_ids)s::text[])
ORDER BY period_start, account_id COLLATE "C";

-- name: months_to_finish
-- Months with an invoice that was just numbered, or whose money nobody has been asked for with a definite answer.
SELECT DISTINCT i.document #>> '{service_period,month}' AS month
FROM invoice i
WHERE i.state = 'issued' AND (i.invoice_id = ANY(%(invoice_ids)s::text[])
    OR i.total_minor > 0 AND NOT EXISTS (
        SELECT FROM payment_attempt p WHERE p.invoice_id = i.invoice_id AND p.state NOT IN ('intended', 'unknown')))
ORDER BY 1;

-- name: issued_without_payment
-- Invoices nobody has to pay: no attempt tells that their documents were reached.
SELECT document #>> '{service_period,month}' AS month, number FROM invoice WHERE state = 'issued' AND total_minor <= 0
ORDER BY number;

-- name: issued_documents
SELECT document FROM invoice
WHERE state = 'issued' AND document #>> '{service_period,month}' = ANY(%(months)s::text[])
ORDER BY period_start, account_id COLLATE "C";

-- name: find_document
-- By number or id.
SELECT document FROM invoice WHERE state = 'issued' AND (number = %(number_or_id)s OR invoice_id = %(number_or_id)s);
