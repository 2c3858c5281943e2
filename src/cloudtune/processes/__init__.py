"""Processes: which one this is, and the environment of those that are started."""
