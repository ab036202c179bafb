-- name: intend
-- The first attempt of issued invoices that ask for money; one that is there already stays as it is.
INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency)
SELECT i.invoice_id, 1, b.payment_gateway, %(key)s, i.total_minor, i.currency
FROM invoice i JOIN billing_account b USING (account_id)
WHERE i.invoice_id = %(invoice_id)s AND i.state = 'issued' AND i.total_minor > 0
ON CONFLICT DO NOTHING;

-- name: undecided
-- Attempts without a definite answer, oldest first. 'requested' is one: the buyer was asked.
SELECT p.invoice_id, p.attempt_number, i.number AS invoice_number, i.account_id, p.gateway, p.state, p.amount_minor,
    p.currency, p.idempotency_key
FROM payment_attempt p JOIN invoice i USING (invoice_id)
WHERE p.state IN ('intended', 'unknown') AND p.invoice_id = ANY(%(invoice_ids)s::text[])
ORDER BY i.number, p.attempt_number;

-- name: record_outcome
-- Only over an attempt that has no definite answer: of two runs at once the first to answer is kept.
UPDATE payment_attempt SET state = %(state)s, reference = %(reference)s, detail = %(detail)s,
    settled_at = CASE WHEN %(state)s IN ('succeeded', 'declined') THEN now() END
WHERE invoice_id = %(invoice_id)s AND attempt_number = %(attempt_number)s AND state IN ('intended', 'unknown');
