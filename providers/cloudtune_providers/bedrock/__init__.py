"""The Amazon Bedrock back end: customization jobs, imports of models trained elsewhere, and what answers from them."""
