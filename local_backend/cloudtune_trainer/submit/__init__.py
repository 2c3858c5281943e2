"""Functions for back ends that plan, package and read a run of the trainer. Does not import torch."""
