"""The Azure OpenAI back end: fine-tuning jobs in a Foundry or Azure OpenAI resource, and their deployments."""
