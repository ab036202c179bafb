-- name: lock_sealer
-- For the session: one sealer at a time.
SELECT pg_try_advisory_lock(hashtextextended('sealer', 0))

-- name: installation
SELECT database_id::text, generation FROM installation

-- name: head
SELECT position, hash FROM ledger_chain ORDER BY position DESC LIMIT 1

-- name: hash_at
SELECT hash FROM ledger_chain WHERE position = %(position)s

-- name: bounds
-- Everything below the first is committed or gone. At or above the second nobody has posted yet: what is there all the
-- same was posted in another life of the database and copied into this one.
SELECT pg_snapshot_xmin(s)::text AS below, pg_snapshot_xmax(s)::text AS beyond FROM pg_current_snapshot() AS s

-- name: unsealed
-- The next transactions to seal, one row an entry (one without entry fields where a transaction has none).
WITH due AS MATERIALIZED (
    SELECT * FROM ledger_transaction t
    WHERE (posted_xid, ledger_transaction_id) > (%(after_xid)s::xid8, %(after_id)s::bigint)
        AND (posted_xid < %(below)s::xid8 OR posted_xid >= %(beyond)s::xid8)
        AND NOT EXISTS (SELECT FROM ledger_chain c WHERE c.ledger_transaction_id = t.ledger_transaction_id)
    ORDER BY posted_xid, ledger_transaction_id
    LIMIT %(limit)s
)
SELECT t.posted_xid::text, t.ledger_transaction_id,
    t.key, t.kind, t.billed_item_id::text, t.revision::text,
    to_char(t.booked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    e.ledger_entry_id::text, a.name, a.kind, a.account_id, a.product, a.currency, e.amount::text, e.currency,
    e.account_id, to_char(e.period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
FROM due t LEFT JOIN ledger_entry e USING (ledger_transaction_id) LEFT JOIN ledger_account a USING (ledger_account_id)
ORDER BY t.posted_xid, t.ledger_transaction_id, e.ledger_entry_id

-- name: add_links
INSERT INTO ledger_chain (position, ledger_transaction_id, hash)
SELECT position, ledger_transaction_id, hash
FROM unnest(%(positions)s::bigint[], %(ledger_transaction_ids)s::bigint[], %(hashes)s::bytea[])
    AS made (position, ledger_transaction_id, hash)
