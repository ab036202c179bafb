"""Tests of the source's shape: what a reader may rely on in every file."""
