"""Read untrusted files, and write files that only the user can read."""
