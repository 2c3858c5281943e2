"""The registry of back ends. tests/packaging/test_third_party.py tests installed third-party ones."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from cloudtune import registry
from cloudtune.errors import BackendNotInstalled, ConfigError, UnknownBackend
from cloudtune.install_command import install_command


def test_names_are_sorted_and_ours_are_there() -> None:
    names = registry.backend_names()
    assert list(names) == sorted(names)
    assert "local" in names


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_ours_can_be_described_and_opened(name: str) -> None:
    info = registry.describe(name)
    assert info.origin == "built-in"
    assert info.summary
    assert info.extra, "the pip line needs an extra"
    if not info.missing:
        assert registry.backend_class(name).name == name


def test_a_built_in_back_end_is_found_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda _: pytest.fail("searched all distributions"))
    assert registry.describe("bedrock") is registry.BUILT_IN["bedrock"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownBackend, match="did you mean 'local'") as unknown:
        registry.describe("locall")
    assert unknown.value.exit_code == 2
    assert isinstance(unknown.value, LookupError)


def test_settings_are_checked_all_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        registry.open_backend("local", {"no_such_setting": 1, "nor_this": 2})
    assert [problem.field for problem in refused.value.problems] == [
        "backends.local.no_such_setting", "backends.local.nor_this",
    ]  # fmt: skip


def _entry(name: str, target: str) -> list[EntryPoint]:
    return [EntryPoint(name=name, value=target, group=registry.GROUP)]


def test_a_missing_package_is_told_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    own = registry.BackendInfo(
        name="mine", target="no_such_package.backend:Mine", extra="mine", needs=("no_such_package",)
    )
    monkeypatch.setitem(registry.BUILT_IN, "mine", own)
    assert own.missing == ("no_such_package",)
    with pytest.raises(BackendNotInstalled, match="no_such_package") as missing:
        registry.open_backend("mine")
    assert install_command("mine") in str(missing.value)
    assert isinstance(missing.value, ImportError)
    assert isinstance(missing.value.__cause__, ImportError)
    with pytest.raises(BackendNotInstalled):
        registry.loadable()  # one of ours that is broken is an error


def test_a_stranger_may_raise_anything(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: _entry("odd", "json:no_such_name"))
    with pytest.raises(BackendNotInstalled, match="json:no_such_name"):
        registry.open_backend("odd")
    assert "odd" not in registry.loadable()
    assert "'odd'" in caplog.text


def test_describing_imports_nobody() -> None:
    script = (
        "import sys; from cloudtune import registry;"
        "[registry.describe(name) for name in registry.backend_names()];"
        "print([m for m in ('torch', 'cloudtune_local.backend', 'openai', 'boto3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
