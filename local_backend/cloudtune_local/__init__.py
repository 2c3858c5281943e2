"""The local back end: trains on this machine, in run folders that any process can read.

``backend`` is what the registry opens; ``training`` is the trainer, the only room that loads torch. Importing this
package loads nothing.
"""
