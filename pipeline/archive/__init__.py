"""
The archive stage: every message of usage.events, byte for byte, as Parquet: the evidence bills are proven from.

Reads: usage.events, raw; nothing is decoded, so nothing can be refused.
Writes: a Parquet file (zstd) a partition, log day (UTC) and flush; a row of `archive_file` each; `consumer_offset`.
Key: (topic, log id, partition, first offset). File ranges of a partition join without a gap, from where the
    log's reading began (0, but for a log adopted later) to the offset.
Order: rows of a file in offset order.
Idempotency: a file that no row lists does not exist; names carry a token, so a repeat never overwrites evidence.
Commit point: store.commit_flush. Files are durable (fsync of file and folders) before it; one transaction lists them
    and moves the offset, checked against (offset, flush number, generation). The Kafka commit after it is only a hint.
On failure: what is in memory is forgotten, the stored offset is read again; unlisted files are swept at assignment.

`twins` settles duplicates: it finds each one's twin in the archive, of all logs, and says duplicate or conflict. `lost`
tells what was counted and not archived when a log is lost.
"""
