"""Acme's fine-tuning service as a back end of cloudtune."""
