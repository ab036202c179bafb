"""
Totals: what each subscription item used in a period, computed whole from buckets and assignments, never incremented.

Reads: dirty_mark, dirty_item, usage_bucket, usage_day, series; assignments, bindings, subscriptions of the catalogue.
Writes: billed_item, dirty_item, usage_total; deletes the marks it saw. Then the topic usage.totals.
Key: billed item (subscription, item, period, subject).
Order: none; a total is absolute and carries (generation, revision).
Idempotency: a total is a function of what is there; the revision rises only when the value or its prices changed.
Commit point: two transactions, each whole: marks are expanded to items (`Worker.expand`), items are computed
    (`Worker.compute`, REPEATABLE READ, tried again when another writer was first). What is sent after it may be
    lost: the sweep sends again what was not booked.
On failure: nothing is kept in memory between steps; start again.
"""
