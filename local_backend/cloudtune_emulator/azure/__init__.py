"""The Azure OpenAI API: the data plane in both path styles, and the management plane's deployments."""
