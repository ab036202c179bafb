-- name: installation_generation
SELECT generation FROM installation

-- name: items
-- Who is billed for these items; rows are never changed.
SELECT billed_item_id, account_id, period_start FROM billed_item WHERE billed_item_id = ANY (%(billed_item_ids)s::bigint[])

-- name: lock_accounts
-- Shared advisory locks to the end of the transaction, in the order given (ascending). The closer takes the same ones
-- exclusively: who closes an account waits for what is being posted to it, and nobody posts while it is cut.
SELECT count(pg_advisory_xact_lock_shared(hashtextextended('account:' || account_id, 0)))
FROM unnest(%(account_ids)s::text[]) AS account_id

-- name: closing_accounts
-- Asked after lock_accounts, by a statement of its own: its snapshot then has what the closer committed.
SELECT DISTINCT account_id FROM billing_period
WHERE account_id = ANY (%(account_ids)s::text[]) AND state = 'closing'

-- name: current_totals
-- Revisions only rise, so what is read without a lock stays an upper bound that a charge may rely on.
SELECT billed_item_id, generation, revision FROM usage_total
WHERE billed_item_id = ANY (%(billed_item_ids)s::bigint[])

-- name: insert_booked_rows
-- Revision 0 stands for "nothing booked" and never outlives the transaction: every row inserted here is updated by it.
-- Waits where another sink is inserting the same item.
INSERT INTO booked_charge (billed_item_id, generation, revision, outcome, quantity, amounts, breakdown)
SELECT billed_item_id, %(generation)s::integer, 0, 'rated', 0, '[]', '[]'
FROM unnest(%(billed_item_ids)s::bigint[]) AS billed_item_id
ORDER BY billed_item_id
ON CONFLICT (billed_item_id) DO NOTHING

-- name: lock_booked_rows
-- Row locks by item ascending: of two sinks one reads what the other posted.
SELECT billed_item_id, generation, revision, amounts, outcome FROM booked_charge
WHERE billed_item_id = ANY (%(billed_item_ids)s::bigint[])
ORDER BY billed_item_id
FOR UPDATE

-- name: ledger_accounts
SELECT name, ledger_account_id FROM ledger_account WHERE name = ANY (%(names)s::text[])

-- name: insert_ledger_accounts
-- By name ascending, as given; waits where another transaction is opening the same account.
INSERT INTO ledger_account (name, kind, account_id, product, currency)
SELECT name, kind, account_id, product, currency
FROM unnest(%(names)s::text[], %(kinds)s::text[], %(account_ids)s::text[], %(products)s::text[], %(currencies)s::text[])
    AS opened (name, kind, account_id, product, currency)
ON CONFLICT (name) DO NOTHING

-- name: insert_transactions
INSERT INTO ledger_transaction (key, kind, billed_item_id, revision)
SELECT key, 'usage', billed_item_id, revision
FROM unnest(%(keys)s::text[], %(billed_item_ids)s::bigint[], %(revisions)s::bigint[]) AS booked (key, billed_item_id, revision)
RETURNING key, ledger_transaction_id

-- name: insert_entries
-- All entries of all transactions by one statement: the balance trigger looks at each transaction of a statement.
INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency, account_id, period_start)
SELECT ledger_transaction_id, ledger_account_id, amount, currency, account_id, period_start
FROM unnest(%(ledger_transaction_ids)s::bigint[], %(ledger_account_ids)s::bigint[], %(amounts)s::numeric[],
            %(currencies)s::text[], %(account_ids)s::text[], %(period_starts)s::timestamptz[])
    AS posted (ledger_transaction_id, ledger_account_id, amount, currency, account_id, period_start)

-- name: update_booked_rows
UPDATE booked_charge
SET generation = %(generation)s::integer, revision = booked.revision, outcome = booked.outcome, reason = booked.reason,
    quantity = booked.quantity, amounts = booked.amounts::jsonb, breakdown = booked.breakdown::jsonb, booked_at = now()
FROM unnest(%(billed_item_ids)s::bigint[], %(revisions)s::bigint[], %(outcomes)s::text[], %(reasons)s::text[],
            %(quantities)s::numeric[], %(amounts)s::text[], %(breakdowns)s::text[])
    AS booked (billed_item_id, revision, outcome, reason, quantity, amounts, breakdown)
WHERE booked_charge.billed_item_id = booked.billed_item_id

-- name: trial_balance
-- Every ledger account with the sum of its entries: debits positive, credits negative; per currency they sum to zero.
SELECT account.name, account.kind, account.currency, coalesce(sum(entry.amount), 0)::numeric(38, 12) AS balance
FROM ledger_account account LEFT JOIN ledger_entry entry USING (ledger_account_id)
GROUP BY account.ledger_account_id
ORDER BY account.currency, account.name
