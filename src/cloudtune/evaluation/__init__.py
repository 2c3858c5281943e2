"""Evaluation: the answers of models on held-out rows, metrics with intervals, and paired comparisons.

``evaluating`` asks the models and makes the `Evaluation`. The calculations need numpy, which is imported on first use.
"""
