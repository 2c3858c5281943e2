"""Read files that others made, and write files that only the user can read."""
