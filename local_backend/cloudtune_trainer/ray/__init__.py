"""The trainer as a job of a Ray cluster."""
