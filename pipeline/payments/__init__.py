"""
payments: asks a gateway for the money of issued invoices.

Reads: issued invoices whose gateway has not been asked.
Writes: payment_attempt.
Key: (invoice, attempt number); the idempotency key is made of both and stays until there is a definite outcome.
Commit points: the intent before the gateway is called, the outcome after. No call is made inside a transaction.
On failure: an intent without an outcome is asked about again under the same key; an unknown outcome is looked up first.

`manual` asks by bank transfer. A gateway that moves money itself (stripe.py) implements `gateway.Gateway` and is named
in bootstrap; webhooks that report outcomes, and dunning that makes second attempts, belong here too.
"""
