"""
payments: asks a gateway for the money of issued invoices, and posts what came.

Reads: issued invoices, billing accounts (whom to charge), payment_attempt.
Writes: payment_attempt; for money that came, a ledger transaction: debit cash, credit receivable.
Key: (invoice, attempt number); the idempotency key is made of both and stays until there is a definite outcome.
Order: an attempt begins when the one before it was declined, and only when a person asks for it.
Idempotency: a gateway is asked what it knows under the key before it is asked for money; one key gives one payment; a
    definite outcome is recorded and posted once, in one transaction.
Commit points: the intent before the gateway is called, the outcome after. No call is made inside a transaction.
On failure: an attempt without an outcome is looked up by the next run (`rackmeter payments reconcile`, or a close).

`manual` asks by bank transfer, `stripe` charges a card on file. A gateway implements `gateway.Gateway` and is named in
bootstrap. `attempts` moves, `store` remembers, `rules` and `stripe_intents` decide.
"""
