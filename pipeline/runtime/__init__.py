"""How a process runs: settings, database, Kafka, metrics, logs. Knows no billing."""
