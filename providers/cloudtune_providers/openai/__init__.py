"""The OpenAI back end: fine-tuning jobs at OpenAI, or at a compatible service at ``base_url``."""
