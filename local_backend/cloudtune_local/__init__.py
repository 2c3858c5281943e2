"""The local back end: trains on this machine, in run folders that any process can read.

``backend`` is the entry point for the registry. Only ``cloudtune_trainer`` imports torch. Importing this
package loads nothing.
"""
