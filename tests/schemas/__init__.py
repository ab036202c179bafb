"""Schemas, examples and code say the same."""
