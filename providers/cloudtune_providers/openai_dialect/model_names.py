"""The names of base models and of tuned models."""


def base_of(model: str) -> str:
    """The base of a tuned model's name (``ft:base:org::id``, ``base.ft-id``); other names unchanged."""
    if model.startswith("ft:"):
        return model.split(":")[1]
    return model.partition(".ft-")[0]
