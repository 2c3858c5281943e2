"""SageMaker's API: training jobs of every kind, hub contents, model packages, endpoints and their answers."""
