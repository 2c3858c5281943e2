"""The ledger: the durable record of jobs and their steps, in SQLite or PostgreSQL."""
