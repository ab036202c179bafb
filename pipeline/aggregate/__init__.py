"""
Aggregate: usage.events becomes samples, slots, days and decisions. The hot path.

Reads: usage.events (one event a message, or a batch of one source); decision_queue (events to decide about again);
    meters and ignore rules of the catalogue.
Writes: usage_sample, usage_bucket, usage_day, series, decision, decision_change, partition_tally, identity_epoch,
    source_completeness, source_subject, dirty_mark, consumer_offset.
Key: the event's source; its home partition is murmur2(source) modulo the partitions, so one worker owns its identity.
Order: none needed. A bucket comes out the same whatever order its events arrive in.
Idempotency: (source, id) counts once, remembered as sets of number intervals per (source, epoch).
Commit point: one PostgreSQL transaction a flush (`store.write_flush`), fenced by the partition's
    (offset, flush number, generation); the Kafka commit after it is a hint.
On failure: memory is forgotten, offsets and identities are read again. A log that was truncated, re-created or
    made with another number of partitions halts the stage with the reason; nothing is skipped.
"""
