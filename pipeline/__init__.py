"""Rackmeter: from usage events of rented servers to proven invoices.

The way of an event: ingest -> usage.events -> aggregate -> buckets; archive keeps the evidence beside it.
totals -> usage.totals -> rate -> billing.charges -> ledger_sink -> entries; invoice_batch closes the period,
proof recomputes every line from the archive before a number is given, payments asks for the money.
docs/architecture.md has the map; each stage's package docstring is its contract.
"""

__version__ = "0.1.0"
