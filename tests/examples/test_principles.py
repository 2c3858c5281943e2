"""The example of pairs by principles: what the model is asked, which pairs remain, and DPO on them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from cloudtune import Generation
from cloudtune.client import Client
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "principles" / "principles.py"


class Writer:
    """Answers by the number of turns, and records what it was asked."""

    def __init__(self, revisions: list[str]) -> None:
        self.asked: list[list[dict[str, str]]] = []
        self.revisions = iter(revisions)

    def generate(self, conversations: list[list[dict[str, str]]], _options: Any) -> list[Generation]:
        self.asked += conversations
        by_turns = {1: lambda: "draft", 3: lambda: "critique", 5: lambda: next(self.revisions)}
        return [
            Generation(text="" if "mute" in turns[-1]["content"] else by_turns[len(turns)]()) for turns in conversations
        ]


def test_each_answer_is_criticized_by_a_principle_and_revised(tmp_path: Path) -> None:
    names = runpy.run_path(str(EXAMPLE))
    writer = Writer(["better", "draft", "", "best"])
    found = names["pairs"](writer, ["a", "b", "c", "d"], ["polite", "short"])
    assert found == [
        {"prompt": "a", "chosen": "better", "rejected": "draft"},
        {"prompt": "d", "chosen": "best", "rejected": "draft"},
    ]
    critiques = [turns[-1]["content"] for turns in writer.asked if len(turns) == 3]
    assert ["polite" in text for text in critiques] == [True, False, True, False]
    assert [turn["content"] for turn in writer.asked[-1] if turn["role"] == "assistant"] == ["draft", "critique"]

    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in found), encoding="utf-8")
    model = EXAMPLE.parents[1] / "reward" / "model.json"
    spec: JobSpec = names["dpo"](str(model), tmp_path / "pairs.jsonl")
    client = Client(LocalBackend(Options(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/ledger.db")
    assert client.plan(spec).spec["method"]["name"] == "dpo"


def test_the_model_is_not_asked_about_empty_answers() -> None:
    writer = Writer(["better"])
    found = runpy.run_path(str(EXAMPLE))["pairs"](writer, ["mute", "b", "c"], ["polite", "mute", "short"])
    assert found == [{"prompt": "c", "chosen": "better", "rejected": "draft"}]
    assert all(turn["content"] for turns in writer.asked for turn in turns)


@pytest.mark.soak
@pytest.mark.starts_trainer
@pytest.mark.timeout(900)
def test_dpo_trains_on_pairs_of_a_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path))
    names = runpy.run_path(str(EXAMPLE))
    model, rows, prompts = (tmp_path / name for name in ("model.json", "rows.jsonl", "prompts.txt"))
    config = json.loads((EXAMPLE.parents[1] / "reward" / "model.json").read_text(encoding="utf-8"))
    config["model"]["max_position_embeddings"] = 1024
    model.write_text(json.dumps(config), encoding="utf-8")
    prompts.write_text("How?\nWhy?\n", encoding="utf-8")
    taught = []
    for number, prompt in enumerate(("How?", "Why?")):  # a model that answers, criticizes and revises
        criticize = names["CRITICIZE"].format(principle=names["principles"]()[number])
        said = (prompt, "So.", criticize, "Too short.", names["REVISE"], "Thank you, so.")
        taught.append({"messages": [names["turn"](("user", "assistant")[i % 2], text) for i, text in enumerate(said)]})
    rows.write_text("".join(json.dumps(row) + "\n" for row in taught), encoding="utf-8")
    hyper = {"max_steps": 40, "batch_size": 2, "learning_rate": 1e-2, "scheduler": "constant"}
    spec = {"model": str(model), "adapter": "full", "data": {"train": str(rows)}, "hyperparameters": hyper}
    job = Client("local").submit(JobSpec.model_validate(spec))
    job.wait()
    arguments = [str(job.ref), "--model", str(model), "--pairs", str(tmp_path / "pairs.jsonl"), "--max-tokens", "12"]
    assert names["main"]([*arguments, "--prompts", str(prompts)]) == 2
    pair = json.loads((tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert pair == {"prompt": "How?", "chosen": "Thank you, so.", "rejected": "So."}
    states = [snapshot.state.value for snapshot in Client("local").jobs()]
    assert states == ["succeeded", "succeeded"]
