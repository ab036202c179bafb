"""The pipeline on TimescaleDB itself: `make test-timescale`."""
