"""The SageMaker back end: the local back end's own trainer in SageMaker's containers, and AWS's trainers beside it."""
