"""
Stage sealer: chains committed ledger transactions by hash, and writes the chain's head outside the database.

Reads:        ledger_transaction, ledger_entry, ledger_account, ledger_chain, installation.
Writes:       ledger_chain; then a line of the journal's stream `heads`.
Key:          the ledger transaction; each has one position.
Order:        one the stage stores itself. A transaction is sealed once nothing older than it runs any more: ids of
              rows are given out before they are committed, so going on behind the last id would leave a slow one out
              for ever. One sealer works at a time (advisory lock); others wait.
Idempotency:  ledger_chain, unique by transaction and by position.
Commit point: one PostgreSQL transaction a batch of the chain; the head is written after it, and again by the next pass
              where a crash came between.
On failure:   what the worker remembers is forgotten, and the next pass looks for everything that is not sealed. Posting
              never waits for the chain. A chain that lacks what the journal says of it halts the stage: the database is
              an older or another one.
"""
