-- name: ledger_accounts
SELECT a.name, a.kind, a.account_id AS account, a.product, a.currency, count(e.ledger_entry_id) AS entries,
    coalesce(sum(e.amount), 0) AS balance
FROM ledger_account a LEFT JOIN ledger_entry e USING (ledger_account_id)
WHERE (%(account)s::text IS NULL OR a.account_id = %(account)s)
    AND (%(kind)s::text IS NULL OR a.kind = %(kind)s)
    AND (%(name)s::text IS NULL OR a.name = %(name)s)
GROUP BY a.ledger_account_id
ORDER BY a.currency COLLATE "C", a.kind COLLATE "C", a.name COLLATE "C"

-- name: statement
-- Entries of a ledger account in the order they were booked, with the balance behind each. The service month is that of
-- the billing account's own zone; a month asked for counts from nothing.
WITH entry AS (
    SELECT e.ledger_entry_id, t.ledger_transaction_id, t.booked_at, t.kind, t.key, t.billed_item_id, e.amount, e.currency,
        e.account_id, to_char(e.period_start AT TIME ZONE b.time_zone, 'YYYY-MM') AS period
    FROM ledger_account a
    JOIN ledger_entry e USING (ledger_account_id)
    JOIN ledger_transaction t USING (ledger_transaction_id)
    LEFT JOIN billing_account b ON b.account_id = e.account_id
    WHERE a.name = %(name)s
), counted AS (
    SELECT *, sum(amount) OVER (ORDER BY booked_at, ledger_entry_id) AS balance
    FROM entry WHERE %(period)s::text IS NULL OR period = %(period)s
)
SELECT c.booked_at, c.ledger_transaction_id AS posting, c.kind, c.period, c.account_id AS account,
    i.subscription_id AS subscription, i.item, nullif(i.subject, '') AS server,
    coalesce(taken.number, taken.invoice_id, own.number) AS invoice,
    greatest(c.amount, 0) AS debit, greatest(-c.amount, 0) AS credit, c.balance, c.balance - c.amount AS before, c.currency
FROM counted c
LEFT JOIN billed_item i USING (billed_item_id)
LEFT JOIN invoice_entry e USING (ledger_entry_id)
LEFT JOIN invoice taken ON taken.invoice_id = e.invoice_id
LEFT JOIN invoice own ON c.key = 'invoice:' || own.invoice_id
WHERE (%(from)s::timestamptz IS NULL OR c.booked_at >= %(from)s) AND (%(to)s::timestamptz IS NULL OR c.booked_at < %(to)s)
ORDER BY c.booked_at, c.ledger_entry_id

-- name: posting
-- A ledger transaction by its number or key, with its place in the chain.
SELECT t.ledger_transaction_id AS posting, t.key, t.kind, t.booked_at, t.revision, i.account_id AS account,
    i.subscription_id AS subscription, i.item, nullif(i.subject, '') AS server, t.billed_item_id,
    i.period_start, i.period_end, own.invoice_id, own.number AS invoice, c.position, encode(c.hash, 'hex') AS hash, c.sealed_at
FROM ledger_transaction t
LEFT JOIN billed_item i USING (billed_item_id)
LEFT JOIN ledger_chain c USING (ledger_transaction_id)
LEFT JOIN invoice own ON t.key = 'invoice:' || own.invoice_id
WHERE t.key = %(name)s OR t.ledger_transaction_id = %(number)s

-- name: posting_entries
-- Its entries, and which invoice line took each.
SELECT e.ledger_entry_id AS entry, a.name AS ledger_account, greatest(e.amount, 0) AS debit,
    greatest(-e.amount, 0) AS credit, e.currency, e.account_id AS account,
    to_char(e.period_start AT TIME ZONE b.time_zone, 'YYYY-MM') AS period, n.invoice_id,
    coalesce(n.number, n.invoice_id) AS invoice, taken.line_number AS line
FROM ledger_entry e
JOIN ledger_account a USING (ledger_account_id)
LEFT JOIN billing_account b ON b.account_id = e.account_id
LEFT JOIN invoice_entry taken USING (ledger_entry_id)
LEFT JOIN invoice n ON n.invoice_id = taken.invoice_id
WHERE e.ledger_transaction_id = %(posting)s
ORDER BY e.ledger_entry_id

-- name: export_entries
-- Everything, transaction by transaction in the order it was booked.
SELECT t.ledger_transaction_id, t.key, t.kind, t.booked_at, c.position, i.subscription_id, i.item, nullif(i.subject, ''),
    own.number, a.name, a.kind, e.currency, e.amount, to_char(e.period_start AT TIME ZONE b.time_zone, 'YYYY-MM')
FROM ledger_transaction t
JOIN ledger_entry e USING (ledger_transaction_id)
JOIN ledger_account a USING (ledger_account_id)
LEFT JOIN billing_account b ON b.account_id = e.account_id
LEFT JOIN billed_item i USING (billed_item_id)
LEFT JOIN ledger_chain c USING (ledger_transaction_id)
LEFT JOIN invoice own ON t.key = 'invoice:' || own.invoice_id
ORDER BY t.booked_at, t.ledger_transaction_id, e.ledger_entry_id

-- name: export_days
-- The first and the last day anything was booked on.
SELECT min(booked_at), max(booked_at) FROM ledger_transaction

-- name: export_head
SELECT position, encode(hash, 'hex') FROM ledger_chain ORDER BY position DESC LIMIT 1
