"""Configuration files: settings of back ends, profiles and the place of the ledger."""
