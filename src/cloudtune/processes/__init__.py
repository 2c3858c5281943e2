"""Process identity, and the environment of child processes."""
