"""A spec can ask to run a model's own code; only a person can allow it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.syntax import nodes

from cloudtune.spec import JobSpec
from cloudtune.spec_types import LARGEST_INT, LARGEST_SEED
from cloudtune.trust import reward_fields, trust_fields, trust_warnings

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("src", "providers", "local_backend", "examples")
SOURCES = sorted(path for root in ROOTS for path in (REPOSITORY / root).rglob("*.py"))


@pytest.mark.parametrize("value", [True, 1, "true", "True", '"true"', "1", "yes"])
@pytest.mark.parametrize("key", ["trust_remote_code", "OPTION_TRUST_REMOTE_CODE", "TRUST_REMOTE_CODE"])
def test_every_spelling_that_asks_for_trust_is_found(key: str, value: object) -> None:
    for own in ({key: value}, {"hyperparameters": {key: value}}, {"environment": [{key: value}]}):
        (field,) = trust_fields({"overrides": {"sagemaker": own}}, "sagemaker")
        assert field.endswith(key)
    (problem,) = trust_warnings({"overrides": {"local": {key: value}}}, "local")
    assert (problem.severity, problem.field) == ("warning", f"overrides.local.{key}")


@pytest.mark.parametrize("value", [False, None, 0, "", "false", "False", '"false"', "no"])
def test_what_is_off_asks_for_nothing(value: object) -> None:
    assert not trust_fields({"overrides": {"local": {"trust_remote_code": value}}}, "local")


def test_other_back_ends_do_not_count() -> None:
    assert not trust_fields({"overrides": {"local": {"trust_remote_code": True}}}, "sagemaker")
    assert not trust_fields({}, "sagemaker")


def test_a_reward_that_runs_or_sends_something_asks_for_trust() -> None:
    for name, asks in {"function": True, "url": True, "model": False}.items():
        spec = {"method": {"name": "grpo", "reward": {name: "x"}}}
        fields = (f"method.reward.{name}",) if asks else ()
        assert tuple(reward_fields(spec, "local")) == fields
        assert tuple(problem.field for problem in trust_warnings(spec, "local")) == fields
    assert not reward_fields({}, "local")


def test_an_address_in_the_overrides_asks_for_trust() -> None:
    endpoint = {"type": "endpoint", "url": "https://grader.example/score", "name": "see https://example.com for more"}
    for grader, place in ((endpoint, "url"), ({"type": "multi", "graders": [{"a": endpoint}]}, "graders.0.a.url")):
        spec = {"overrides": {"azure_openai": {"grader": grader}}}
        assert list(reward_fields(spec, "azure_openai")) == [f"overrides.azure_openai.grader.{place}"]
        assert not reward_fields(spec, "openai")


UNSANDBOXED = {"Environment", "NativeEnvironment", "NativeTemplate", "Template"}
FORBIDDEN = {"extract", "extractall", "unpack_archive"}
READ_ARCHIVES = {
    "archives.py",
    "access.py",  # on a cluster, where only the standard library is there: writes regular files with relative names
}
UNSAFE = {"torch.load", "pickle.load", "pickle.loads", "numpy.load", "np.load", "marshal.loads", "eval", "exec"}


def faults(path: Path) -> list[str]:
    """Calls that unpack, unpickle, or let a document decide about trust."""
    found = []
    for node in nodes(path):
        if (
            isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "jinja2"
            and not UNSANDBOXED.isdisjoint(one.name for one in node.names) and path.name != "template_sandbox.py"
        ):  # fmt: skip
            found.append(f"{path}:{node.lineno}: imports what is not sandboxed")
        key: ast.expr | None = node.slice if isinstance(node, ast.Subscript) else None
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            attribute = node.func.attr if isinstance(node.func, ast.Attribute) else name
            mode = words.get("mode") or (ast.unparse(node.args[1]) if len(node.args) > 1 else "'r'")
            if (
                attribute in FORBIDDEN or name in UNSAFE or words.get("allow_pickle") == "True"
                or words.get("weights_only", "True") != "True"
                or (name == "tarfile.open" and not mode.startswith("'w") and path.name not in READ_ARCHIVES)
                or name in ("jinja2.Environment", "jinja2.Template")
            ):  # fmt: skip
                found.append(f"{path}:{node.lineno}: {name}")
            key = node.args[0] if attribute == "get" and node.args else None
        if isinstance(key, ast.Constant) and "trust_remote_code" in str(key.value).lower():
            found.append(f"{path}:{key.lineno}: reads {key.value}")
    return found


def test_only_one_module_unpacks_and_none_unpickles() -> None:
    assert [fault for path in SOURCES for fault in faults(path)] == []


@pytest.mark.parametrize("code", [
    "tarfile.open(p).extractall(q)", "archive.extract(a)", "shutil.unpack_archive(a)", "tarfile.open(a)",
    "tarfile.open(fileobj=f, mode='r:gz')", "torch.load(a)", "load(a, weights_only=False)",
    "load(a, allow_pickle=True)",
    "pickle.loads(a)", "jinja2.Template(a)",
    "from jinja2 import Environment", "from jinja2.environment import Template",
    "from jinja2.nativetypes import NativeEnvironment", "tuned.get('trust_remote_code')", "tuned['trust_remote_code']",
])  # fmt: skip
def test_the_scan_sees_what_it_forbids(tmp_path: Path, code: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(code)
    assert faults(path)


SPEC = {"model": "m", "data": {"train": "rows.jsonl"}}


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 10**30, 10**400])
@pytest.mark.parametrize("place", ["seed", "split_seed"])
def test_impossible_seed_is_refused_at_the_spec(place: str, seed: int) -> None:
    changed = {"seed": seed} if place == "seed" else {"data": SPEC["data"] | {"split_seed": seed}}  # type: ignore[operator]
    with pytest.raises(ValueError, match=place):
        JobSpec.model_validate(SPEC | changed)
    JobSpec.model_validate(SPEC | {"seed": LARGEST_SEED})


@pytest.mark.parametrize("field", ["batch_size", "max_steps", "max_length", "warmup_steps"])
def test_impossible_counts_are_refused_at_the_spec(field: str) -> None:
    for number in (LARGEST_INT + 1, 10**30, 10**400):
        with pytest.raises(ValueError, match=field):
            JobSpec.model_validate(SPEC | {"hyperparameters": {field: number}})


@pytest.mark.parametrize("changes", [
    {"model": "a\0b"}, {"model": {"local": "a\0"}}, {"data": {"train": "a\0.jsonl"}}, {"backend": "lo\0cal"},
    {"data": {"train": {"path": "a\0"}}}, {"data": {"train": ["a", "b\0"]}}, {"tags": {"a": "\0"}},
    {"tags": {"\0": "a"}},
    {"data": {"train": "a", "validation": "b\0"}}, {"overrides": {"local": {"revision": "a\0"}}},
    {"overrides": {"sagemaker": {"x": [{"y": "\0"}]}}}, {"name": "a\0"},
])  # fmt: skip
def test_nul_is_refused_in_every_field(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"NUL|letters, digits"):
        JobSpec.model_validate(SPEC | changes)
