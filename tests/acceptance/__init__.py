"""The whole system with its real parts, as `make demo` and `rackmeter up` run it."""
