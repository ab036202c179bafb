"""Fast tests of pipeline.ingest."""
