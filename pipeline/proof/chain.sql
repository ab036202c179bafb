-- name: chain_identity
SELECT database_id::text FROM installation

-- name: chain_extent
-- Where the chain begins and ends, how many positions there are, and what is not sealed.
SELECT coalesce(min(position), 0), coalesce(max(position), 0), count(*),
    (SELECT count(*) FROM ledger_transaction t
     WHERE NOT EXISTS (SELECT FROM ledger_chain c WHERE c.ledger_transaction_id = t.ledger_transaction_id))
FROM ledger_chain

-- name: chain_batches
-- The last position of each commit of the sealer. Each of them was written outside.
SELECT max(position) FROM ledger_chain GROUP BY sealed_at ORDER BY 1

-- name: chain_passed_over
-- Transactions the sealer has gone past: posted before something that is sealed. What is copied in from another life of
-- the database has ids to come, and says nothing.
SELECT t.ledger_transaction_id, t.key FROM ledger_transaction t
WHERE NOT EXISTS (SELECT FROM ledger_chain c WHERE c.ledger_transaction_id = t.ledger_transaction_id)
    AND t.posted_xid < (
        SELECT max(s.posted_xid) FROM ledger_chain c JOIN ledger_transaction s USING (ledger_transaction_id)
        WHERE s.posted_xid < pg_snapshot_xmax(pg_current_snapshot()))
ORDER BY t.ledger_transaction_id
LIMIT 20

-- name: chain_links
-- Positions with what they seal, as the text whose bytes are hashed: every value as length:bytes, and "-," for none. A
-- transaction that is gone has no text.
SELECT c.position, c.hash, c.ledger_transaction_id, t.key, (
        SELECT string_agg(coalesce(octet_length(v) || ':' || v || ',', '-,'), '' ORDER BY n)
        FROM unnest(ARRAY[t.key, t.kind, t.billed_item_id::text, t.revision::text,
            to_char(t.booked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), listed.count::text])
            WITH ORDINALITY AS field (v, n)
    ) || listed.text AS content
FROM ledger_chain c
LEFT JOIN ledger_transaction t USING (ledger_transaction_id)
CROSS JOIN LATERAL (
    SELECT count(*) AS count, coalesce(string_agg(entry.text, '' ORDER BY entry.ledger_entry_id), '') AS text
    FROM (
        SELECT e.ledger_entry_id, (
            SELECT string_agg(coalesce(octet_length(v) || ':' || v || ',', '-,'), '' ORDER BY n)
            FROM unnest(ARRAY[e.ledger_entry_id::text, a.name, a.kind, a.account_id, a.product, a.currency,
                e.amount::text, e.currency, e.account_id,
                to_char(e.period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')])
                WITH ORDINALITY AS field (v, n)) AS text
        FROM ledger_entry e LEFT JOIN ledger_account a USING (ledger_account_id)
        WHERE e.ledger_transaction_id = c.ledger_transaction_id
    ) AS entry
) AS listed
WHERE c.position > %(after)s
ORDER BY c.position
LIMIT %(limit)s

-- name: issued_documents
SELECT invoice_id, number, document_digest FROM invoice WHERE state = 'issued'
