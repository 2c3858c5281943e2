"""The worker: waits for a free slot, runs the trainer as a child process, and records how it ended.

It is shipped with the trainer to other machines, so it imports the standard library and the trainer's folder only.
"""
