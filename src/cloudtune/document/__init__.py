"""YAML, JSON and TOML documents: values with line numbers, validation, and spec files."""
