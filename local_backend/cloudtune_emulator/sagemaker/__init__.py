"""The SageMaker API: training jobs of every kind, hub contents, model packages, endpoints and inference."""
