"""The JumpStart back end: AWS's own trainers for the models of the SageMaker hub, in training jobs on instances."""
