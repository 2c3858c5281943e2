"""Secrets are masked by their shape and by their value, in every encoding; what only looks alike stays."""

from __future__ import annotations

import base64
import html
import json
import logging
import pickle
import re
import traceback
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from cloudtune.errors import InvalidRequest, JobFailed, Problem, SpecError
from cloudtune.redaction.redactor import RedactingFormatter, Redactor, environment_secrets, setting_secrets
from cloudtune.secret_shapes import MASK, is_token, mask_shapes
from cloudtune.state import JobProblem, JobRef, JobSnapshot, JobState

A40 = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12"
HEX = "0123456789abcdef" * 4
KEY_BLOCK = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0Zs\nabc123==\n-----END RSA PRIVATE KEY-----"

SHAPES: dict[str, tuple[str, str]] = {
    # what it is: (the text, the part that must not be seen)
    "openai": ("key sk-abcdefghijklmnopqrstuvwx", "sk-abcdefghijkl"),
    "openai project": ("sk-proj-Ab1_cd-efghijklmnopqrstuv", "Ab1_cd"),
    "anthropic": ("sk-ant-api03-abcdefghijklmnopqrstuvwxyz-AA", "api03-abc"),
    "aws key id": ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7"),
    "aws temporary key id": ("ASIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7"),
    "aws secret, ini": (f"aws_secret_access_key = {A40}", A40),
    "aws secret, json": (f'{{"SecretAccessKey": "{A40}"}}', A40),
    "aws session token": ("aws_session_token=IQoJb3JpZ2luX2VjEAAaCXVzLWVhc3Qt", "IQoJb3Jp"),
    "aws security token header": ("X-Amz-Security-Token: IQoJb3JpZ2luX2VjEAAaCXVz", "IQoJb3Jp"),
    "aws signed header": (f"AWS4-HMAC-SHA256 Credential=x/us-east-1, Signature={HEX}", HEX),
    "aws signed url": (f"https://b.s3.amazonaws.com/k?X-Amz-Signature={HEX}&X-Amz-Date=1", HEX),
    "aws token in url": ("https://b/k?a=1&X-Amz-Security-Token=IQoJb3JpZ2lu%2F1", "IQoJb3Jp"),
    "bedrock short term": ("bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9B", "YmVkcm9jay5"),
    "bedrock long term": ("ABSKQmVkcm9ja0FQSUtleS1hYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg==", "QmVkcm9ja0FQ"),
    "azure account key": (f"DefaultEndpointsProtocol=https;AccountKey={A40}==;EndpointSuffix=x", A40),
    "azure sas": ("https://a.blob.core.windows.net/c?sv=2024&sig=aB3%2Fd9fZ%3D&se=1", "aB3%2F"),
    "azure shared access key": (f"Endpoint=sb://x/;SharedAccessKey={A40}", A40),
    "azure api-key header": ("api-key: 0123456789abcdef0123456789abcdef", "0123456789abcdef"),
    "entra client secret": ("aB1" + "8Q~" + "abcdefghijklmnopqrstuvwxyz0123456", "8Q~abc"),
    "bearer header": ("Authorization: Bearer abcdef123456", "abcdef123456"),
    "bearer alone": ("the token 'bearer AbCdEf0123' is no good", "AbCdEf0123"),
    "basic header": ('{"authorization": "Basic dXNlcjpwYXNzd29yZA=="}', "dXNlcjpw"),
    "header without a scheme": ("Authorization=abcdef-0123456789", "abcdef-0123"),
    "json web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "dozjgNryP4"),
    "json web token after a prefix": ("token-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "dozjgNryP4"),
    "json web token after a name": ("session_eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "dozjgNryP4"),
    "json web token after a letter": ("éeyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "dozjgNryP4"),
    "github": ("ghp_" + "a1" * 18, "a1a1a1"),
    "github fine grained": ("github_pat_11ABCDEFG0abcdefghijkl_mnop", "11ABCDEFG0"),
    "slack refresh": ("xoxe.xoxp-1-Mi0yLTEyMzQ1Njc4OTAxMi0", "Mi0yLTEy"),
    "xai": ("xai-" + "aB3" * 12, "aB3aB3"),
    "gitlab": ("glpat-abcdefghij0123456789", "abcdefghij"),
    "hugging face": ("hf_" + "aB3" * 11, "aB3aB3"),
    "npm": ("npm_" + "a1B2" * 9, "a1B2a1"),
    "pypi": ("pypi-AgEIcHlwaS5vcmc" + "a1" * 25, "AgEIcHlw"),
    "databricks": ("dapi" + "0123456789abcdef" * 2, "0123456789ab"),
    "slack": ("xoxb-123456789012-abcdefghij", "123456789012"),
    "slack app": ("xapp-1-A0123456789-abcdef", "A0123456789"),
    "slack webhook": ("https://hooks.slack.com/services/T00000000/B00000000/abcdefgh", "B00000000"),
    "discord webhook": ("https://discord.com/api/webhooks/123456789/abc-def_ghi", "abc-def_ghi"),
    "google api": ("AIza" + "aB3_-" * 7, "aB3_-aB3"),
    "google signed url": (f"https://storage.googleapis.com/b/o?X-Goog-Signature={HEX}", HEX),
    "google oauth": ("ya29.a0AfH6SMBabcdefghijklmnop", "a0AfH6"),
    "google client secret": ("GOCSPX-abcdefghijklmnopqrst12", "abcdefghijk"),
    "stripe": ("sk_live_0123456789abcdefgh", "0123456789"),
    "stripe webhook": ("whsec_abcdefghijklmnop0123456789", "abcdefghijk"),
    "sendgrid": ("SG.abcdefghijklmnop1234.qrstuvwxyz0123456789", "abcdefghij"),
    "digitalocean": (f"dop_v1_{HEX}", HEX),
    "groq": ("gsk_" + "aB3" * 12, "aB3aB3"),
    "nvidia": ("nvapi-" + "aB3" * 12, "aB3aB3"),
    "private key": (f"before\n{KEY_BLOCK}\nafter", "MIIEpAIB"),
    "private key in json": (json.dumps({"key": KEY_BLOCK}), "MIIEpAIB"),
    "private key cut short": (KEY_BLOCK[:60], "MIIEpAIB"),
    "password in a url": ("cannot reach postgresql://me:hunter2@db:5432/x today", "hunter2"),
    "password with an at": ("amqp://me:hun@ter2@broker/x", "hun@ter2"),
    "password parameter": ("https://h/p?user=me&password=hunter2&x=1", "hunter2"),
    "password field": ("password: correct9horse", "correct9horse"),
    "client secret field": ("client_secret='s3cr3t-value'", "s3cr3t-value"),
    "escaped json": (r"{\"api_key\": \"value-123456\"}", "value-123456"),
}
HARMLESS = (
    f"sha256 {HEX}", f"sha256:{HEX}", "9f86d081-884c-4d63-8a0b-1f5a0b6b9c3d", "etag 9e107d9d372bb6826bd81d3542a419d6",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-micro-v1:0:128k/abc123def456",
    "arn:aws:sagemaker:eu-west-1:123456789012:training-job/mine-0123456789",
    "ft:gpt-4.1-mini-2025-04-14:acme::Ab12Cd34",
    "file-abc123DEF456ghi789JKL012", "ftjob-abc123DEF456ghi789JKL012", "ftevent-abc123", "batch_abc123def456",
    "chatcmpl-9abcDEF0123456789", "resp_67ccd2bed1ec8190", "req_0123456789abcdef0123456789abcdef", "gpt-4o-2024-08-06",
    "meta-llama/Llama-3.1-8B-Instruct", "anthropic.claude-3-haiku-20240307-v1:0", "s3://bucket/folder/rows.jsonl",
    "https://example.com:8443/path?key_name=a&page=2", "Bearer authentication is required", "basic authentication",
    "the authorization header is missing", "Authorization: required", "the api key is wrong: check it",
    "password: it is not set", 'write api_key = "${OPENAI_API_KEY}"', "api_key=None",
    "max_tokens=128", "token 7f3a2b1c9d",
    "task-oriented-dialogue-model-number-12345", "risk-assessment-classifier-v2-2025-01-01",
    "sk-learn-text-classifier-demo", "xoxo-hugs-and-kisses", "xai-methods-for-explainable-artificial-intelligence",
    "bedrock-api-key-rotation-and-authentication", "glagent-based-modelling-for-beginners",
    "nvapi-compatible-endpoints-for-inference-servers", "hf_hub_download_with_progress_bar_and_retries",
    "/home/me/.cache/huggingface/hub/models--gpt2/snapshots/607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "local:/home/me/runs:headlines-3f2a", "2026-11-29T00:17:48.123456Z", "error: step 120/400 loss 0.1234",
    "postgresql://me@db:5432/x?sslmode=require", "https://user@host/p", "no key, no token, no secret",
)  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_secret_of_a_known_shape_is_masked(name: str) -> None:
    text, hidden = SHAPES[name]
    masked = mask_shapes(text)
    assert hidden not in masked
    assert MASK in masked
    assert mask_shapes(masked) == masked, "masking again changes nothing"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert mask_shapes(text) == text
    assert not is_token(text)


def test_what_stands_around_a_secret_stays() -> None:
    assert mask_shapes(SHAPES["private key"][0]) == f"before\n{MASK}\nafter"
    assert mask_shapes(SHAPES["password in a url"][0]) == f"cannot reach postgresql://me:{MASK}@db:5432/x today"
    assert mask_shapes(SHAPES["password parameter"][0]) == f"https://h/p?user=me&password={MASK}&x=1"


VALUE = 'My/Pass+word="q&x\\ü9'
ENCODED = {
    "as it is": VALUE, "upper": VALUE.upper(), "lower": VALUE.lower(),
    "url": quote(VALUE, safe=""), "url, path": quote(VALUE), "form": quote_plus(VALUE),
    "url, lower": quote(VALUE, safe="").lower(), "url twice": quote(quote(VALUE, safe=""), safe=""),
    "json": json.dumps(VALUE), "json, utf-8": json.dumps(VALUE, ensure_ascii=False),
    "json, slashes": json.dumps(VALUE).replace("/", "\\/"), "repr": repr(VALUE), "html": html.escape(VALUE),
    "hex": VALUE.encode().hex(), "base64": base64.b64encode(VALUE.encode()).decode(),
    "base64 url": base64.urlsafe_b64encode(VALUE.encode()).decode(),
    "basic header": base64.b64encode(f"user:{VALUE}".encode()).decode(),
    "base64, third": base64.b64encode(f"us:{VALUE}:x".encode()).decode(),
    "two lines": f"{VALUE[:9]}\n{VALUE[9:]}", "set in": f"{VALUE[:9]}\r\n    {VALUE[9:]}",
    "continued": f"{VALUE[:9]}\\\n{VALUE[9:]}", "two lines in json": json.dumps(f"{VALUE[:9]}\n{VALUE[9:]}"),
    "two lines in a repr": repr(f"{VALUE[:9]}\r\n{VALUE[9:]}"),
    "base64 in lines": base64.encodebytes(f"{'x' * 49}{VALUE}".encode()).decode()[60:],
    "base64 in json": base64.b64encode(f'{{"k": "{VALUE}", "more": 1}}'.encode()).decode(),
}  # fmt: skip


@pytest.mark.parametrize("form", ENCODED)
def test_a_value_in_use_is_masked_in_every_encoding(form: str) -> None:
    text = f"before {ENCODED[form]} after"
    masked = Redactor([VALUE]).values(text)
    assert MASK in masked
    assert len(masked) < 60, "but for the letters of what stands beside it in base64"
    assert not any(run in masked for run in re.findall(r"[^ ]{24}", ENCODED[form]))


def test_what_stands_around_a_value_in_two_lines_stays() -> None:
    text = f"a\nb {VALUE[:5]}\n{VALUE[5:]}\nc\n{VALUE[:5]}\n  {VALUE[5:]}d\n"
    assert Redactor([VALUE]).values(text) == f"a\nb {MASK}\nc\n{MASK}d\n"
    assert Redactor([VALUE]).values("a\nb\\nc") == "a\nb\\nc"


def test_short_values_are_masked_as_whole_words_only() -> None:
    redactor = Redactor(["pass1", "abc"])
    assert redactor.values("pass1 pass12 abc (pass1)") == f"{MASK} pass12 abc ({MASK})"


def test_an_unchanged_value_is_the_same_object() -> None:
    snapshot = JobSnapshot(ref=JobRef("a", "b", "c"), state=JobState.FAILED, native_state="x", raw={"a": [1, "b"]})
    assert Redactor(["secret-value"]).data(snapshot) is snapshot


def test_all_text_of_a_value_is_redacted_but_its_reference() -> None:
    ref = JobRef("openai", "secret-value", "ftjob-1")
    snapshot = JobSnapshot(
        ref=ref, state=JobState.FAILED, native_state="secret-value", detail="secret-value",
        problem=JobProblem(message="bad secret-value", code="secret-value", hint="secret-value"),
        raw={"secret-value": ["secret-value", {"a": ("secret-value",)}]},
    )  # fmt: skip
    redacted = Redactor(["secret-value"]).data(snapshot)
    assert redacted.ref == ref
    assert "secret-value" not in repr(redacted).replace(repr(ref), "")


SECRET = "secret-value"


class Stubborn(Exception):
    """Its text cannot be changed."""

    def __str__(self) -> str:
        return f"quotes {SECRET}"


def chained(innermost: Exception) -> InvalidRequest:
    try:
        try:
            raise innermost
        except Exception as error:
            raise ValueError(SECRET, {"Authorization": f"Bearer {SECRET}"}) from error
    except ValueError as error:
        made = InvalidRequest(f"refused: {SECRET}", hint=SECRET)
        made.__cause__ = error
        return made


@pytest.mark.parametrize("innermost", [KeyError(SECRET), Stubborn(), OSError(2, SECRET, SECRET)])
def test_an_error_and_its_causes_are_redacted(innermost: Exception) -> None:
    error = chained(innermost)
    Redactor([SECRET]).error(error)
    text = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error)) + repr(error.__cause__)
    assert SECRET not in text
    assert isinstance(error.__cause__, ValueError)
    assert SECRET not in str(pickle.loads(pickle.dumps(error)))


def test_problems_and_snapshots_of_errors_are_redacted() -> None:
    refused = SpecError([Problem(code="x", message=SECRET, fix=SECRET)])
    ref = JobRef("a", "b", "c")
    snapshot = JobSnapshot(ref=ref, state=JobState.FAILED, native_state="x", detail=SECRET)
    failed = JobFailed(SECRET, ref=ref, snapshot=snapshot)
    for error in (refused, failed):
        Redactor([SECRET]).error(error)
        assert SECRET not in f"{error!r} {error} {vars(error)}"


def test_log_records_are_redacted_with_their_tracebacks() -> None:
    formatter = RedactingFormatter(Redactor(["secret-value"]), "%(message)s")
    try:
        raise ValueError("secret" + "-value")
    except ValueError as error:
        info: Any = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.INFO, "p", 1, "sent %s", ({"api-key": "secret-value"},), info)
    reported = formatter.format(record)
    assert "secret-value" not in reported
    assert "ValueError" in reported


def test_secrets_are_taken_from_the_environment_by_name() -> None:
    environ = {
        "OPENAI_API_KEY": "a1", "AWS_SECRET_ACCESS_KEY": "a2", "AWS_SESSION_TOKEN": "a3", "AZURE_CLIENT_SECRET": "a4",
        "AWS_BEARER_TOKEN_BEDROCK": "a5", "HF_TOKEN": "a6", "PGPASSWORD": "a7", "DATABASE_URL": "postgresql://me:a8@h/x",
        "AWS_ACCESS_KEY_ID": "no", "PATH": "no", "HOME": "no", "GOOGLE_APPLICATION_CREDENTIALS": "/no/file.json",
    }  # fmt: skip
    assert environment_secrets(environ) == {"a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"}


def test_secrets_are_taken_from_settings_by_type_name_and_url() -> None:
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

    options = AzureOpenAIOptions.model_validate(
        {"endpoint": "https://me:a1@host", "api_key": "a2", "management_token": "a3", "account": "no"}
    )
    assert setting_secrets(options) == {"a1", "a2", "a3"}
    assert setting_secrets({"client_secret": "b1", "nested": [{"token": "b2"}], "name": "no"}) == {"b1", "b2"}
