"""Check, count, measure and fingerprint records. `prepare` and `check` do it in one pass."""
