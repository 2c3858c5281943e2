"""The second route: fine-tuning jobs of catalogue models in an Azure Machine Learning workspace, through azure-ai-ml.

Other than in a Foundry resource a job has a name that the client gives, so that making it twice is the same job; rows
lie in the workspace's blob store; a tuned model is registered in the workspace.
"""
