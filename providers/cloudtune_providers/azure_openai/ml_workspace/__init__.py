"""The ``ml_workspace`` route: jobs for catalog models in an Azure Machine Learning workspace, with azure-ai-ml.

Unlike in a Foundry resource, the client names the job, so creating it twice is the same job. Rows are in the
workspace's blob store, and tuned models are registered in the workspace.
"""
