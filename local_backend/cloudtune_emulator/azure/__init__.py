"""The Azure OpenAI face: the data plane in both path styles, and the management plane's deployments."""
