"""The SageMaker back end: cloudtune's own trainer in SageMaker's containers, and AWS's serverless trainers."""
