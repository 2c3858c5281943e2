"""A secret is refused in a spec for every vendor's format, and masked wherever a URL is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune.capability_check import fit
from cloudtune.clock import SystemClock
from cloudtune.errors import LedgerError, UnsupportedError
from cloudtune.ledger.ledger import Ledger
from cloudtune.redaction.masking import masked, url_password
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tags": {"api_key": "whatever"}}, "tags.api_key"),
        ({"tags": {"note": "glpat-abcdefghij0123456789"}}, "tags.note"),
        ({"tags": {"note": "sk_live_0123456789abcdef"}}, "tags.note"),
        ({"tags": {"note": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN"}}, "tags.note"),
        ({"model": "postgresql://me:hunter2@db/x"}, "model"),
    ],
)
def test_a_spec_made_in_python_is_refused_with_a_secret_in_it(tmp_path: Path, change: dict, field: str) -> None:
    spec = JobSpec.model_validate({"model": "m", "data": {"train": "a.jsonl"}} | change)
    with pytest.raises(UnsupportedError) as reported:
        fit(spec, LocalBackend(Options(root=tmp_path)))
    assert [problem.field for problem in reported.value.problems] == [field]
    assert "hunter2" not in str(reported.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://h/db?user=me&password=pw123", "postgresql://h/db?user=me&password=********"),
        ("postgresql://me:pw123@h/db", "postgresql://me:********@h/db"),
        ("https://b/f?sig=abc&password=pw123&x=1", "https://b/f?sig=********&password=********&x=1"),
        ("postgresql://me@h/db?sslmode=require", "postgresql://me@h/db?sslmode=require"),
        ("https://h/p?key_name=a", "https://h/p?key_name=a"),
    ],
)
def test_passwords_in_urls_are_masked_wherever_they_stand(url: str, shown: str) -> None:
    assert masked("ledger", url) == shown


def test_a_ledger_refuses_a_password_in_the_query_too() -> None:
    url = "postgresql://h/db?user=me&password=pw123"
    assert url_password(url) == "pw123"
    with pytest.raises(LedgerError) as reported:
        Ledger.open(url, SystemClock())
    assert "pw123" not in str(reported.value)
