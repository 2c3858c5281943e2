"""The formats of secrets: keys and tokens that vendors issue, and values in positions where secrets are usual.

Every repetition before the first certain character of a pattern is bounded, so that matching takes time linear in the
text. The words that a pattern needs are looked for first, which is fast.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MASK = "********"


class Shape(NamedTuple):
    """A pattern, and the words of which its text holds at least one."""

    words: tuple[str, ...]
    pattern: re.Pattern[str]


def _token(pattern: str, *words: str) -> Shape:
    return Shape(words, re.compile(pattern))


_VARIED = r"(?=[A-Za-z_-]{0,64}[0-9A-Z])"
"""Words of ordinary text follow some prefixes too; an issued key has digits or capitals."""

TOKENS = (
    # OpenAI, Anthropic, OpenRouter
    _token(
        rf"\bsk-(?:[A-Za-z0-9]{{20,}}|(?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{{20,}}|{_VARIED}[A-Za-z0-9_-]{{20,}})",
        "sk-",
    ),
    # Access key ids of AWS
    _token(r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b", "AKIA", "ASIA", "ABIA", "ACCA"),
    # Bedrock API keys, short and long term
    _token(r"\bbedrock-api-key-[A-Za-z0-9+/=]{20,}[A-Za-z0-9+/=_-]*", "bedrock-api-key-"),
    _token(r"\bABSK[A-Za-z0-9+/]{40,}={0,2}", "ABSK"),
    _token(r"\bhf_[A-Za-z0-9]{30,}", "hf_"),
    _token(r"\bgh[pousr]_[A-Za-z0-9]{36,}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _token(r"\bgithub_pat_[A-Za-z0-9_]{22,}", "github_pat_"),
    _token(
        rf"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-{_VARIED}[A-Za-z0-9_-]{{20,}}",
        "glpat-",
        "gldt-",
        "glrt-",
        "glcbt-",
        "glptt-",
        "glft-",
        "glsoat-",
        "glagent-",
    ),
    _token(r"\bnpm_[A-Za-z0-9]{36,}", "npm_"),
    _token(r"\bpypi-[A-Za-z0-9_-]{50,}", "pypi-"),
    _token(r"\bdapi[0-9a-f]{32}(?:-[0-9])?\b", "dapi"),
    # Slack
    _token(r"\bxox[abeoprs](?:\.xox[bp])?-[0-9][A-Za-z0-9-]{9,}", "xox"),
    _token(r"\bxapp-[0-9]-[A-Za-z0-9-]{10,}", "xapp-"),
    # Google
    _token(r"\bAIza[A-Za-z0-9_-]{35}", "AIza"),
    _token(r"\bya29\.[A-Za-z0-9_-]{20,}", "ya29."),
    _token(r"\bGOCSPX-[A-Za-z0-9_-]{20,}", "GOCSPX-"),
    # Stripe
    _token(r"\b[srp]k_(?:live|test)_[A-Za-z0-9]{16,}", "k_live_", "k_test_"),
    _token(r"\bwhsec_[A-Za-z0-9+/=]{20,}", "whsec_"),
    # SendGrid, DigitalOcean, Shopify, Groq, Replicate, NVIDIA, xAI, Perplexity
    _token(r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", "SG."),
    _token(r"\bdop_v1_[0-9a-f]{64}", "dop_v1_"),
    _token(r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", "shpat_", "shpca_", "shppa_", "shpss_"),
    _token(r"\b(?:gsk|r8)_[A-Za-z0-9]{30,}", "gsk_", "r8_"),
    _token(rf"\bnvapi-{_VARIED}[A-Za-z0-9_-]{{30,}}", "nvapi-"),
    _token(r"\b(?:xai|pplx)-[A-Za-z0-9]{30,}", "xai-", "pplx-"),
    # Client secrets of Entra
    _token(r"\b[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}", "Q~"),
    # JSON web tokens, also after a prefix such as `token-`. Each run of their characters is searched for `eyJ` once.
    _token(
        r"(?<![A-Za-z0-9_-])(?>[A-Za-z0-9_-]*?(?<![A-Za-z0-9])eyJ)"
        r"[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}",
        "eyJ",
    ),
    _token(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
        "PRIVATE KEY",
    ),
)
"""Secret in any position."""

_QUOTE = r"\\?[\"']"
_NAMES = (
    rf"(?<![A-Za-z0-9])(?i:(?:x-)?api[_-]?key|account[_-]?key|shared[_-]?access[_-]?key|(?:client|app)[_-]?secret"
    r"|(?:aws[_-]?)?secret[_-]?(?:access[_-]?)?key|(?:aws[_-]?)?session[_-]?token|(?:x-amz-)?security[_-]?token"
    rf"|(?:access|refresh|id|auth|bearer|hub|hf)[_-]?token|pass(?:word|wd|phrase)|pwd|subscription-key){_QUOTE}?"
)
_NAME_WORDS = ("key", "secret", "token", "pass", "pwd")
_NO_VALUE = r"(?!(?i:none|null|true|false)\b|\$\{|\*{3}|\.{3}|<)"
_ISSUED = r"(?=[^\s\"',;&]{0,64}[0-9]|[^\s\"',;&][^\s\"',;&]{0,64}[A-Z=])"
"""The value has a digit, or a capital after its first letter: it is not a word of a sentence."""
_SCHEMES = "bearer|basic|sharedkey|negotiate"

_IN_PLACE = (
    # A header with any scheme, and a scheme without a header.
    _token(
        rf"((?i:authorization){_QUOTE}?\s{{0,8}}[:=]\s{{0,8}}(?:{_QUOTE})?(?:[A-Za-z]{{2,20}}\s{{1,8}})?)"
        rf"{_ISSUED}([^\s\"',;}}]{{8,}})",
        "authorization",
    ),
    _token(rf"(\b(?i:{_SCHEMES})\s{{1,8}}){_ISSUED}([A-Za-z0-9._~+/:=-]{{8,}})", *_SCHEMES.split("|")),
    # "api_key": "...", AccountKey=..., api-key: ...
    _token(rf"({_NAMES}\s{{0,8}}[:=]\s{{0,8}}{_QUOTE}){_NO_VALUE}([^\"'\s\\]{{4,}})", *_NAME_WORDS),
    _token(rf"({_NAMES}=){_NO_VALUE}([^\s\"',;&)\]}}]{{4,}})", *_NAME_WORDS),
    _token(rf"({_NAMES}\s{{0,8}}[:=]\s{{1,8}}){_NO_VALUE}{_ISSUED}([^\s\"',;&)\]}}]{{6,}})", *_NAME_WORDS),
    # Signed addresses: SAS, S3, Google Cloud Storage, CloudFront; signed headers.
    _token(
        r"((?<![A-Za-z0-9])(?i:sig|signature|x-(?:amz|goog)-signature|x-amz-security-token)(?:=|%3[dD]))"
        r"([^\s&\"'<>;,\\]{8,})",
        "sig", "x-amz-security-token",
    ),
    # Webhooks
    _token(r"(\bhooks\.slack\.com/(?:services|workflows|triggers)/)([A-Za-z0-9/_-]{8,})", "hooks.slack.com"),
    _token(r"(\bdiscord(?:app)?\.com/api/webhooks/)([0-9A-Za-z/_-]{8,})", "/api/webhooks/"),
    # Passwords in addresses
    _token(r"(\b(?i:[a-z][a-z0-9+.-]{0,30})://[^\s/:@\"']{0,256}:)(?!\$\{|\*)([^\s/\"']{1,512})(?=@)", "://"),
)  # fmt: skip
"""Secret because of its prefix: the first group is kept, the second is masked. Words are in lower case."""


def is_token(text: str) -> bool:
    """Whether the text contains a string like an issued key or a private key."""
    return any(shape.pattern.search(text) for shape in TOKENS if any(word in text for word in shape.words))


def mask_shapes(text: str) -> str:
    """The text with everything masked that matches the shape of a secret."""
    if len(text) < 8:
        return text
    masked = text
    for words, pattern in TOKENS:
        for word in words:  # a loop, because `any` is slow here: most texts of a back end pass through it
            if word in masked:
                masked = pattern.sub(MASK, masked)
                break
    lowered = masked.lower()
    for words, pattern in _IN_PLACE:
        for word in words:
            if word in lowered:
                masked = pattern.sub(rf"\g<1>{MASK}", masked)
                break
    return masked
