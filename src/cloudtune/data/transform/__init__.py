"""Change a stream of records: filter, clean, deduplicate, balance, mix and shuffle."""
