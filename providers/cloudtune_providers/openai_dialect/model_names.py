"""The names of base models and of what was tuned on them."""


def base_of(model: str) -> str:
    """The base of a tuned model's name (``ft:base:org::id``, ``base.ft-id``); other names as they are."""
    if model.startswith("ft:"):
        return model.split(":")[1]
    return model.partition(".ft-")[0]
