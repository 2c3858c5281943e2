"""The Azure OpenAI api: the data plane in both path styles, and the management plane's deployments."""
