"""Configuration files: back-end settings, profiles and the ledger's URL."""
