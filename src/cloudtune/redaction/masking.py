"""Detects and masks secrets, by key names and by the formats of vendors' keys.

Secrets belong in the vendor's credential chain or in environment variables. cloudtune never writes them to a file,
and `masked` is applied to all printed values.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from cloudtune.secret_shapes import MASK, is_token

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
"""``${NAME}`` or ``${NAME:-default}``."""

_SECRET_WORDS = frozenset({"secret", "password", "passwd", "passphrase", "credential", "credentials", "apikey"})
_SECRET_ENDS = frozenset({"key", "token", "keys", "tokens", "pat", "auth", "authorization"})
# `kms_key` names a key without being one; `max_tokens` counts.
_HARMLESS_WORDS = frozenset({"kms", "public", "partition", "sort", "primary", "max", "min", "num", "pad", "eos", "bos"})
_SIGNATURES = frozenset({"sig", "x-amz-signature", "sslpassword"})
_HARMLESS_ENDS = frozenset({"arn", "name", "file", "path", "url", "uri", "env"})


def is_secret_name(key: str) -> bool:
    """Whether a key of that name usually holds a secret: ``api_key``, ``client_secret``; not ``kms_key_arn``."""
    words = [word for word in re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower()) if word]
    if not words or words[-1] in _HARMLESS_ENDS:
        return False
    if _SECRET_WORDS.intersection(words):
        return True
    return words[-1] in _SECRET_ENDS and not _HARMLESS_WORDS.intersection(words)


def is_secret_shape(value: Any) -> bool:
    """Whether a text contains a string like a vendor's key."""
    return isinstance(value, str) and is_token(value)


def is_reference(value: Any) -> bool:
    """Whether a text consists only of references to environment variables without defaults."""
    return isinstance(value, str) and bool(value) and all(
        default == "" for default in (found[2] or "" for found in REFERENCE.finditer(value))
    ) and not REFERENCE.sub("", value)  # fmt: skip


def url_password(value: Any) -> str | None:
    """The password or signature inside a URL, before its host or in its query, if there is one."""
    if not isinstance(value, str) or "://" not in value:
        return None
    try:
        parts = urlsplit(value)
        query = parse_qsl(parts.query)
    except ValueError:
        return None
    signed = (text for key, text in query if _is_signature(key))
    return parts.password or next(signed, None)


def looks_secret(path: tuple[str, ...], value: Any) -> bool:
    """Whether a value of a spec looks like a secret, by its shape or, where names are free, by its name."""
    named = path[0] in ("overrides", "tags") and is_secret_name(path[-1])
    return is_secret_shape(value) or named or url_password(value) is not None


def masked(key: str, value: Any) -> Any:
    """The value for display under that key. References are shown unchanged: they contain no secret."""
    if isinstance(value, dict):
        return {name: masked(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(key, item) for item in value]
    if not isinstance(value, str) or not value or is_reference(value):
        return value
    if is_secret_name(key) or is_secret_shape(value):
        return MASK
    return _masked_url(value)


def _masked_url(value: str) -> str:
    password = url_password(value)
    if password is None:
        return value
    parts = urlsplit(value)
    place = parts.netloc
    if parts.password and not is_reference(parts.password):
        place = place.replace(f":{parts.password}@", f":{MASK}@")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = "&".join(f"{key}={MASK if _is_signature(key) and not is_reference(text) else text}" for key, text in pairs)
    return urlunsplit(parts._replace(netloc=place, query=query))


def _is_signature(key: str) -> bool:
    return is_secret_name(key) or key.lower() in _SIGNATURES
