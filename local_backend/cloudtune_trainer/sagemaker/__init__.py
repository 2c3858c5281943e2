"""The trainer in Amazon SageMaker: the entry point of a training container, and the inference code of an endpoint."""
