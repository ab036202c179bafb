-- name: sum_offsets
-- How far aggregate and archive are together, in messages.
SELECT coalesce(sum(offset_next), 0) FROM consumer_offset WHERE topic = 'usage.events'

-- name: sum_tally
-- What was received, by what was decided about it.
SELECT sum(received)::bigint, sum(counted)::bigint, sum(duplicate)::bigint, sum(conflict)::bigint,
       sum(quarantined)::bigint, sum(parked)::bigint, sum(ignored)::bigint, sum(control)::bigint
FROM partition_tally WHERE topic = 'usage.events'

-- name: trial_balance
SELECT a.name, a.currency, sum(e.amount)
FROM ledger_entry e JOIN ledger_account a USING (ledger_account_id)
GROUP BY a.name, a.currency ORDER BY a.name

-- name: count_lines
SELECT invoice_id, count(*) FROM invoice_line GROUP BY invoice_id

-- name: has_catalogues
-- Whether the database was migrated at all.
SELECT to_regclass('catalogue_version') IS NOT NULL

-- name: count_other_catalogues
-- Catalogues that are not the demo's: this is somebody's installation.
SELECT count(*) FROM catalogue_version WHERE digest <> %(digest)s
