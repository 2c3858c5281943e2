"""Search for better parameters: each trial is a job, and the ledger records every trial."""
