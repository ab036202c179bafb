"""Fast tests of pipeline.agent."""
