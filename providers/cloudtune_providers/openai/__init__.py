"""The OpenAI back end: fine-tuning jobs at OpenAI, or at whatever speaks its dialect at ``base_url``."""
