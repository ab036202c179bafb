"""A broker and a database of our own for one machine, the processes of `rackmeter up`, and the demo."""
