"""The Azure OpenAI API: the data plane in both path styles, and deployments in the management plane."""
