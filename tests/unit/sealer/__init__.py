"""The sealer's rules."""
