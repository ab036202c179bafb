"""
Agent: what this host, groups of its processes and its containers use becomes events, every few seconds, for ever.

Reads: counters of the kernel through psutil, and of cgroup v2.
Writes: the source's spool; from there usage.events, in a thread of its own.
Key: the source, one an agent.
Order: a beat's events come in one go, after them `complete_until` the beat's time.
Idempotency: ids are made once by the emitter; what is sent again has the same bytes.
Commit point: the spool's flush, once a beat; the broker's acknowledgement only moves the spool's cursor.
On failure: the broker's absence is waited out; what a full disk did not take is declared; anything else ends the
    process, and whoever started it starts it again.

Counters only rise while the machine is up. What devices or processes take with them when they go is kept in
`totals`, so that nothing but a reboot looks like a reset.
"""
