"""The OpenAI API: files, uploads, fine-tuning jobs, models, chat completions and responses."""
