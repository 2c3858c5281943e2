"""The OpenAI face: files, uploads, fine-tuning jobs, models, chat completions and responses."""
