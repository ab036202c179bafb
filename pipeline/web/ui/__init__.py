"""
ui: pages to look at, on this machine, for whoever may read the database.

Reads: everything the reports read, one snapshot a page; the archive for the events of a slot; /metrics of the stages.
Writes: nothing. The session is read only, its role may only SELECT, and no route takes anything but GET.
On failure: the page says what does not answer; the next one asks again.
"""
