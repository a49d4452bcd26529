"""Market data: sources, ingestion with the time each row became known, and the snapshot that one run reads."""
