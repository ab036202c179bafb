"""
Ingest: what a host used becomes events of usage.events, each with an id that is made once.

Reads: the host (through UsageEmitter) or a recorded trace (replay).
Writes: usage.events.
Key: the source, so that a source is in order in one partition.
Order: numbers of a (source, epoch) rise by one; the time of sending is free.
Idempotency: ids are made once. The emitter reserves numbers on disk before it uses them; a replay's ids follow
    from the trace's content.
Commit point: the broker's acknowledgement (acks=all) seen by `flush`.
On failure: TransientFault; what was not acknowledged is a hole that the next start declares by a `dropped` event.
"""
