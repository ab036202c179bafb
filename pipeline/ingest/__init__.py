"""
Ingest: what a host used becomes events of usage.events, each with an id that is made once.

Reads: the host (through UsageEmitter) or a recorded trace (replay).
Writes: usage.events; before that, where an emitter has one, its spool on disk.
Key: the source, so that a source is in order in one partition.
Order: numbers of a (source, epoch) rise by one; the time of sending is free.
Idempotency: ids are made once. The emitter reserves numbers on disk before it uses them; a replay's ids follow
    from the trace's content.
Commit point: the spool's fsync seen by `flush`; without a spool the broker's acknowledgement (acks=all).
On failure: TransientFault. What is in a spool is sent again until it is acknowledged; what was lost, from a full one or
    without one, is a hole that is declared by a `dropped` event.
"""
