"""
Stage rate: turns totals into charges, as a Faust app.

Reads:        usage.totals; price versions by id from the database (immutable, so a cached one is right for ever).
Writes:       billing.charges.
Key:          (generation, billed item, revision) of the total, carried over to the charge.
Order:        needs none: a total is whole and versioned, and so is its charge.
Idempotency:  pure: the same total gives the same charge, byte for byte.
Commit point: none, for there is no state. A message counts as done once the broker has acknowledged its charges.
On failure:   an item that cannot be rated yields a charge saying so (no_price, failed) and leaves its neighbours
              alone; a message that cannot be read is logged, counted and skipped; what is lost anywhere here is not
              booked, and the sweep of the totals stage sends it again. Without broker or database the process ends
              with TransientFault and is started again.
"""
