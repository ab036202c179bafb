"""
Stage ledger_sink: books charges, by posting the difference to what is posted already.

Reads:        billing.charges (the group's committed offsets only say where to begin; charges are absolute and
              versioned, so beginning too early or reading twice changes nothing), usage_total, billing_period.
Writes:       ledger_account, ledger_transaction, ledger_entry, booked_charge.
Key:          the billed item; of several charges for one item in a batch only the highest revision is looked at.
Order:        needs none: booked revision < charge revision <= the total's current revision, in the installation's
              generation, or the charge is left aside. Locks: accounts (advisory, shared, ascending), booked rows by
              item, ledger accounts by name.
Idempotency:  booked_charge, one row an item, taken by lock; ledger_transaction.key.
Commit point: one PostgreSQL transaction for a batch of charges bounded in billing accounts.
On failure:   a charge that cannot be posted is booked alone, or not at all, and never takes its neighbours; a charge
              for an account that is closing is left aside; whatever is left aside keeps its total unbooked, and the
              sweep of the totals stage sends it again. A lost connection: nothing was booked; the batch is read again.
"""
