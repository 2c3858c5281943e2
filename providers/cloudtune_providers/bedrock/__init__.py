"""The Amazon Bedrock back end: customization jobs, imports of models trained elsewhere, and inference with them."""
