"""
web: what others reach over HTTP. The collector: usage events in, usage out.

Reads: HTTP requests; tokens, meters, buckets and assignments in PostgreSQL.
Writes: usage.events, through the broker; when a token was last used.
Key: the source, partitioned by murmur2, as every writer of usage.events.
Order: events of one source and request go in one message, in the order they were sent.
Idempotency: (source, id) counts once, so whoever got no 2xx sends the same again.
Commit point: the broker's acknowledgement (acks=all); a 2xx is answered only after it.
On failure: the request is answered 503 with Retry-After and nothing is promised about its events; a collector that
    cannot go on ends, and its supervisor starts it again.
"""
