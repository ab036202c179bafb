"""The `rackmeter` command: one module a group of commands; data on stdout, talk on stderr."""
