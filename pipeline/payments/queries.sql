-- name: intend
-- An attempt of an issued invoice that asks for money: the first one, or the next after one that was declined. What is
-- there already stays as it is.
INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency,
    payment_customer, payment_method)
SELECT i.invoice_id, %(attempt_number)s, b.payment_gateway, %(key)s, i.total_minor, i.currency, b.payment_customer,
    b.payment_method
FROM invoice i JOIN billing_account b USING (account_id)
WHERE i.invoice_id = %(invoice_id)s AND i.state = 'issued' AND i.total_minor > 0
    AND (%(attempt_number)s = 1 OR EXISTS (
        SELECT FROM payment_attempt p WHERE p.invoice_id = i.invoice_id AND p.state = 'declined'
            AND p.attempt_number = %(attempt_number)s - 1))
ON CONFLICT DO NOTHING;

-- name: undecided
-- Attempts to be decided, by invoice number. Null asks for all invoices. 'requested' is one only where the gateway will
-- know more later.
SELECT p.invoice_id, p.attempt_number, i.number AS invoice_number, i.account_id, p.gateway, p.amount_minor, p.currency,
    p.idempotency_key, p.payment_customer, p.payment_method, i.period_end
FROM payment_attempt p JOIN invoice i USING (invoice_id)
WHERE (p.state IN ('intended', 'unknown') OR p.state = 'requested' AND p.gateway = ANY(%(telling_gateways)s::text[]))
    AND (%(invoice_ids)s::text[] IS NULL OR p.invoice_id = ANY(%(invoice_ids)s::text[]))
ORDER BY i.number, p.attempt_number;

-- name: last_attempt
-- An invoice by number or id with its last attempt, if there is one.
SELECT i.invoice_id, i.number, i.state AS invoice_state, i.total_minor, p.attempt_number, p.state
FROM invoice i
LEFT JOIN LATERAL (
    SELECT attempt_number, state FROM payment_attempt
    WHERE invoice_id = i.invoice_id ORDER BY attempt_number DESC LIMIT 1) p ON true
WHERE i.number = %(name)s OR i.invoice_id = %(name)s;

-- name: try_lock_attempt
-- For the session: no transaction is open while a gateway is called.
SELECT pg_try_advisory_lock(hashtextextended('payment:' || %(key)s::text, 0));

-- name: unlock_attempt
SELECT pg_advisory_unlock(hashtextextended('payment:' || %(key)s::text, 0));

-- name: attempt_state
SELECT state FROM payment_attempt WHERE invoice_id = %(invoice_id)s AND attempt_number = %(attempt_number)s;

-- name: lock_attempt
-- Held to the commit, before any ledger account.
SELECT p.state, p.gateway, p.amount_minor, p.currency, i.account_id, i.period_start
FROM payment_attempt p JOIN invoice i USING (invoice_id)
WHERE p.invoice_id = %(invoice_id)s AND p.attempt_number = %(attempt_number)s FOR UPDATE OF p;

-- name: record_outcome
-- Under lock_attempt, and after the posting of what succeeded.
UPDATE payment_attempt SET state = %(state)s, reference = %(reference)s, detail = %(detail)s,
    settled_at = CASE WHEN %(state)s IN ('succeeded', 'declined') THEN now() END
WHERE invoice_id = %(invoice_id)s AND attempt_number = %(attempt_number)s;

-- name: ensure_ledger_accounts
INSERT INTO ledger_account (name, kind, account_id, currency) VALUES
    ('cash:' || %(gateway)s::text || ':' || %(currency)s::text, 'cash', NULL, %(currency)s),
    ('receivable:' || %(account_id)s::text || ':' || %(currency)s::text, 'receivable', %(account_id)s, %(currency)s)
ON CONFLICT (name) DO NOTHING;

-- name: insert_ledger_transaction
INSERT INTO ledger_transaction (key, kind) VALUES (%(key)s, 'payment') RETURNING ledger_transaction_id;

-- name: insert_ledger_entries
-- One statement for both entries: the database balances each transaction by statement.
INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency, account_id, period_start)
SELECT %(ledger_transaction_id)s, a.ledger_account_id, side.sign * %(amount)s::numeric, %(currency)s, %(account_id)s,
    %(period_start)s
FROM (VALUES
    (1, 'cash:' || %(gateway)s::text || ':' || %(currency)s::text),
    (-1, 'receivable:' || %(account_id)s::text || ':' || %(currency)s::text)
) AS side (sign, name) JOIN ledger_account a USING (name);
