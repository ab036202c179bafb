"""
invoice_batch: closes the billing periods of accounts into proven, numbered invoices.

Reads: assignments, bindings, completeness, decisions, dirty marks, totals and booked charges (the gate); the account's
    postings that no invoice has taken (the cut); payment attempts, for what an earlier run left behind. Through ports:
    the ends of the log, the proofs, payment requests.
Writes: billing_period, invoice, invoice_line, invoice_entry, proof_failure, number_series, the invoice's ledger
    transaction; files; the journal's streams of documents.
Key: (account, period). The invoice's id is made of them; a second invoice for them is refused by the database.
Order: an account's periods close in order; numbers are given by (period, account), one series a transaction.
Idempotency: every step looks at the stored state and goes on from there. A second run finds nothing left to do.
Commit points: one a step, each under a lock of its own:
    1. `closing`, under the account's advisory lock; the ledger sink takes it shared, and defers what it finds closing
    2. the cut, in one snapshot taken under that lock: lines, taken entries, `cut`; or back to `open` with the reasons.
       Nothing to take: it stays `closing` until the proof says that nothing is owed, then `closed`, else `open`
    3. `proven` with the proof's report; or the draft is withdrawn: its lines, entries and the invoice are deleted, its
       period is `open`, its differences are kept in proof_failure. The next run cuts anew. Nobody else is held by it
    4. number, ledger transaction, document, `issued`, period `closed`: one transaction a seller and chunk; the
       documents are in the journal before its commit, and what is there without a number is finished first, as it is
    5. files and payment attempts, made from the issued documents of the run's months and of every month in which an
       invoice was numbered by this run, has no answer to its payment request, or asks for nothing and lacks its files
On failure: whatever step was reached stays; the next run, of the same month or a later one, goes on from there. Only a
    draft that is not proven is undone; nothing is done twice.
"""
