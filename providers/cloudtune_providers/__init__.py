"""Back ends over vendors' services, one package each."""
