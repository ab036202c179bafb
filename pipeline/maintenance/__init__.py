"""
Maintenance: what a person or a timer does to the tables. It and the migrations alone know TimescaleDB.

Reads: usage_bucket, usage_sample, billed_item, billing_period, usage_total, booked_charge, dirty marks, assignments.
Writes: retention_edge; deletes slots and samples before it.
Key: the edge, which only rises.
Order: the edge is recorded first, then what lies behind it is dropped.
Idempotency: dropping again what lies behind the recorded edge drops nothing.
Commit point: two. The edge, under the locks that changes of the catalogue and flushes take; then the drop.
On failure: the next run drops what the last one left.
"""
