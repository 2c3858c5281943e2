"""The OpenAI api: files, uploads, fine-tuning jobs, models, chat completions and responses."""
