"""The trainer: a program over a run folder, ``python -m cloudtune_trainer RUN_DIR``.

It reads ``spec.json`` and the data, and writes ``status.json``, events, metrics, checkpoints and the model. It imports
nothing of cloudtune, so that this folder alone can be shipped to a machine that
trains. Importing this package is fast; torch is imported by the modules that need it.
"""
