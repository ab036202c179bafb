"""
reports: what the commands show of the database, read and nothing else.

Reads: buckets, assignments, invoices, decisions, entries, offsets, tallies, marks, totals.
Writes: nothing.
"""
