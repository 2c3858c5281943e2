"""The plan of policy optimization: its terms with their sources, its reward, and what is refused."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.local.backend.test_plan import errors_of, planned, request, sources, spec_json

from cloudtune.errors import SpecError
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.run_spec import read_spec
from cloudtune_trainer.submit.policy import POLICY, PolicyOverrides, find_reward

if TYPE_CHECKING:
    from pathlib import Path

URL = {"url": "http://127.0.0.1:9/reward"}


@pytest.mark.parametrize("method", POLICY)
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_trainer_takes_what_the_plan_holds(tmp_path: Path, method: str, adapter: str) -> None:
    plan = planned(tmp_path, method={"name": method, "reward": URL, "temperature": 0.8}, adapter=adapter)
    read = read_spec(dict(spec_json(plan)) | {"data": {"train": "data/train.jsonl"}}).policy
    assert read is not None
    assert (read.reward.url, read.reward.timeout, read.temperature) == (URL["url"], 300.0, 0.8)
    assert read.num_generations == (1 if method == "ppo" else 8)
    assert read.steps_per_batch == (4 if method == "ppo" else 1)
    assert read.beta == (0.04 if method == "grpo" else 0.05)
    reported = sources(plan)
    assert reported["method.temperature"] == (0.8, "spec")
    assert reported["method.max_new_tokens"] == (256, f"default of local for {method}")
    assert reported["hyperparameters.learning_rate"][0] == (1e-6 if adapter == "full" else 1e-5)
    assert ("frozen copy" if adapter == "full" else "adapter disabled") in reported["reference"][1]


def test_without_beta_there_is_no_reference(tmp_path: Path) -> None:
    reported = sources(planned(tmp_path, method={"name": "grpo", "reward": URL, "beta": 0}))
    assert "reference" not in reported
    assert reported["method.beta"] == (0, "spec")
    for name in ("dpo", "sft"):
        with pytest.raises(ValueError, match="beta must be greater than 0"):
            JobSpec.model_validate({"model": "m", "data": {"train": "t"}, "method": {"name": name, "beta": 0}})


def test_overrides_of_each_method(tmp_path: Path) -> None:
    own = {"steps_per_batch": 3, "clip_range": 0.3, "normalization": "sequences", "scale_rewards": False}
    plan = planned(tmp_path, method={"name": "grpo", "reward": URL}, overrides={"local": {"policy": own}})
    assert spec_json(plan)["policy"].items() >= own.items()
    used = {name: set(spec_json(planned(tmp_path, method={"name": name, "reward": URL}))["policy"]) for name in POLICY}
    assert set(PolicyOverrides.model_fields) <= set.union(*used.values())
    assert "normalization" not in used["rloo"]
    assert "decay" in used["ppo"] - used["grpo"]


@pytest.mark.parametrize(("field", "changes"), [
    ("method.reward", {"method": "grpo"}),
    ("method.reward", {"method": {"name": "sft", "reward": URL}}),
    ("method.temperature", {"method": {"name": "dpo", "temperature": 0.5}}),
    ("method.num_generations", {"method": {"name": "rloo", "reward": URL, "num_generations": 1}}),
    ("method.loss_on", {"method": {"name": "grpo", "reward": URL, "loss_on": "all"}}),
    ("hyperparameters.packing", {"method": {"name": "ppo", "reward": URL}, "hyperparameters": {"packing": True}}),
    ("overrides.local.policy.decay",
     {"method": {"name": "grpo", "reward": URL}, "overrides": {"local": {"policy": {"decay": 0.9}}}}),
    ("overrides.local.policy.clip_range", {"overrides": {"local": {"policy": {"clip_range": 0.1}}}}),
])  # fmt: skip
def test_what_cannot_work_is_refused(tmp_path: Path, field: str, changes: dict[str, Any]) -> None:
    assert set(errors_of(tmp_path, **changes)) == {field}


def test_completions_must_fit_into_the_context(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="256 new tokens leave none to the prompt: max_length is 200"):
        planned(tmp_path, method={"name": "grpo", "reward": URL}, hyperparameters={"max_length": 200})


def test_a_given_adapter_needs_a_training_without_reference(tmp_path: Path) -> None:
    method, adapter = {"name": "grpo", "reward": URL}, {"path": "./a"}
    (problem,) = LocalBackend(Options(root=tmp_path)).check(request(tmp_path, method=method, adapter=adapter).spec)
    assert (problem.field, "merge the adapter" in problem.fix) == ("adapter.path", True)
    spec = request(tmp_path, method=method | {"beta": 0}, adapter=adapter).spec
    assert LocalBackend(Options(root=tmp_path)).check(spec) == []


def test_a_reward_model_must_read_whole_completions(tmp_path: Path) -> None:
    made = request(
        tmp_path, method={"name": "grpo", "reward": {"model": "/judge"}}, hyperparameters={"max_length": 512}
    )
    for read, fits in ((512, True), (511, False)):
        reward = {"model": "/judge", "fingerprint": "f", "max_length": read}
        resolved = msgspec.structs.replace(made.resolved, facts={**made.resolved.facts, "reward": reward})
        own = msgspec.structs.replace(made, resolved=resolved)
        if fits:
            document = spec_json(LocalBackend(Options(root=tmp_path)).plan(own))
            assert document["policy"]["reward"].keys() == {"model", "timeout", "fingerprint"}
            continue
        with pytest.raises(SpecError, match="the reward model reads 511 tokens, and max_length is 512"):
            LocalBackend(Options(root=tmp_path)).plan(own)


@pytest.mark.parametrize("reward", [
    {}, {"function": "a.py:b", "url": "http://a"}, {"function": "a.py"}, {"function": "a.py:not a name"},
    {"url": "ftp://a"}, {"url": "http://user:word@host"}, {"url": ""},
])  # fmt: skip
def test_a_reward_has_one_source(reward: dict[str, Any]) -> None:
    method = {"name": "grpo", "reward": reward}
    with pytest.raises(ValueError, match="reward"):
        JobSpec.model_validate({"model": "m", "data": {"train": "t"}, "method": method})


def test_a_rewards_file_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rewards.py"
    file.write_text("raise SystemExit\ndef score(): ...\nimport os as system\nother = score\n", encoding="utf-8")

    def found(reward: Any) -> dict[str, Any] | None:
        method = {"name": "grpo", "reward": reward}
        return find_reward(JobSpec.model_validate({"model": "m", "data": {"train": "t"}, "method": method}))

    for name in ("score", "system", "other"):
        facts = {"function": f"{file}:{name}", "fingerprint": hashlib.sha256(file.read_bytes()).hexdigest()}
        assert found(f"{file}:{name}") == facts
    monkeypatch.chdir(tmp_path)
    assert found("./rewards.py:other") == facts, "the trainer runs in another folder"
    assert found("package.module:score") is None
    assert found(URL) is None
    (tmp_path / "broken.py").write_text("def score(:", encoding="utf-8")
    (tmp_path / "tuned.json").write_text(json.dumps({
        "base": {"source": "folder", "path": "/m"}, "adapter": "lora", "method": "sft", "base_folder": "/m",
        "merged": False,
    }), encoding="utf-8")  # fmt: skip
    for reward, message in {
        f"{file}:nothing": "does not define nothing", f"{tmp_path}/absent.py:score": "No such file",
        f"{tmp_path}/broken.py:score": "invalid syntax", "~nobody-here/a.py:score": "home directory",
    }.items():  # fmt: skip
        with pytest.raises(SpecError, match=message):
            found(reward)
    for model, message in {str(tmp_path): "its method is sft", "absent": "not a job reference",
                           "local:/runs:absent": "tuned.json is missing"}.items():  # fmt: skip
        with pytest.raises(SpecError, match=message):
            found({"model": model})
