"""
The proof: a second implementation of identity, attribution, meters and prices, over the raw events of the archive.

It shares no code with the stages or the catalogue, only the database's rows and the archive's files. What it finds is
compared to the last digit with what the pipeline decided, summed, booked and put on invoices.

A topic may have been several logs: one that was lost is set aside, and the next is read from its start. All of them are
evidence. Partitions are numbered on, p of log k (the first is 0) as k x number of partitions + p. An event that was
counted and lost before it was archived is proven by its first repeat in a later log.

Steps, each able to fail with a difference that names what differs:
    evidence    every listed file is there, whole, and ranges join without a gap; what the cut sealed is unchanged
    events      messages taken apart and judged by our own statement of validity (SQL; `judge` where SQL cannot)
    decisions   every outcome follows from the evidence: counted once, duplicates have twins, bad ones are bad
    usage       slots of every meter, in whole numbers (HUGEINT), against usage_bucket, usage_day and usage_sample
    charges     attribution, price bindings and prices in Fractions, one quantisation to 12 decimals
    invoices    lines with texts and steps, totals, booked charges, entries, documents, numbers, payment attempts
    ledger      every transaction balances and is for something; what is posted for an item is what is booked
    journal     documents are those written outside before they were issued, where the journal's folder is given
docs/proof.md has what is looked at, column by column.
"""
