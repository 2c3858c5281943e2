"""Remove secrets from text: values in use, keys, and the known shapes of credentials."""
