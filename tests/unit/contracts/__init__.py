"""Fast tests of pipeline.contracts."""
