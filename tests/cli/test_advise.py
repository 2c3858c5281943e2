"""``cloudtune advise``: from options, a file, questions and evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from tests.cli.test_evaluate import with_answers

from cloudtune.cli import advise as command

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

FACTS = ["--change", "style", "--updates", "daily", "--rows", "3,000", "--budget", "100"]
PRICES = ["training=120", "hosting_month=90", "base_input=1", "base_output=2", "tuned_input=0.1", "tuned_output=0.1"]


def test_options_and_files_give_the_same_advice(desk: Desk) -> None:
    done = desk.run("advise", *FACTS)
    assert (done.code, done.out.splitlines()[0]) == (0, "Use RAG and fine-tuning.")
    assert "cloudtune evaluate" in done.err
    Path("s.yaml").write_text("change: style\nupdates: daily\nrows: 3000\nbudget_usd: 100\n")
    assert desk.run("advise", "s.yaml").out == done.out
    assert desk.run("advise", "s.yaml", "--updates", "never").out.startswith("Use fine-tuning.")
    assert "RAG AND FINE-TUNING" in done.out
    assert "TRAINING FROM SCRATCH" not in done.out
    assert "TRAINING FROM SCRATCH" in desk.run("advise", "s.yaml", "--all").out
    shown = desk.run("advise", "s.yaml", "--json").json
    assert shown["advice"]["recommended"] == ["rag", "fine_tuning"]
    assert len(shown["advice"]["comparison"]["RAG"]) == 8
    assert shown["break_even"] is None


def test_what_is_missing_is_listed_at_once_with_the_option(desk: Desk) -> None:
    done = desk.run("advise", "--change", "stile")
    assert (done.code, done.out) == (2, "")
    for text in ("'stile' is not one of", "--updates daily", "--rows 3000", "--budget 500"):
        assert text in done.err
    assert desk.run("advise", "--plot").code == 2


def test_a_terminal_is_asked_for_what_is_missing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers = iter(["never", "none", "60", "no", "yes"])

    def prompt(question: str, **_: object) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(command, "on_a_terminal", lambda: True)
    done = desk.run("advise", "--change", "style", "--rows", "700")
    assert done.out.startswith("Use fine-tuning.")
    assert len(asked) == 5


@pytest.fixture
def job(desk: Desk) -> str:
    ref = desk.submit()
    desk.finish(ref)
    return ref


def test_the_break_even_of_a_job_is_in_table_and_plot(desk: Desk, job: str) -> None:
    assert "has not been evaluated" in desk.run("advise", "--job", job).err
    model = desk.run("generate", job, "x", "--json").json["answers"][0]["model"]
    data = with_answers(f" says {model}")
    options = ("--metric", "exact_match", "--few-shot", "5", "--max-tokens", "200", "--json")
    printed = desk.run("evaluate", job, "--data", data, *options)
    assert printed.code == 0, printed.err
    unknown = desk.run("advise", "--job", job)
    assert unknown.code == 0
    assert unknown.out.startswith("The break-even cannot be decided from this data.")
    assert "the price hosting_month is unknown" in unknown.out
    prices = [word for price in PRICES for word in ("--usd", price)]
    done = desk.run("advise", "--job", job, *prices, "--plot", "--png", "costs.png", *FACTS)
    assert done.code == 0, done.err
    assert "Use RAG and fine-tuning." in done.out
    assert "The tuned model costs less above " in done.out
    assert "requests per month " in done.out.splitlines()[-2]
    assert Path("costs.png").read_bytes().startswith(b"\x89PNG")
    Path("e.json").write_text(printed.out)
    shown = desk.run("advise", "--evaluation", "e.json", *prices, "--json").json
    assert shown["advice"] is None
    found = shown["break_even"]
    assert (found["decision"], found["against"]) == ("above", "base model, 5 examples")
    tokens = [row["tokens"] for row in json.loads(printed.out)["answers"]]
    base, tuned = ([one[name] for one in tokens] for name in (found["against"], found["model"]))
    saving = sum(b[0] * 1 + b[1] * 2 - (t[0] + t[1]) * 0.1 for b, t in zip(base, tuned, strict=True)) / len(tokens)
    assert found["requests_per_month"]["value"] == pytest.approx(100 / (saving / 1e6))


def test_a_file_with_invalid_tokens_is_refused(desk: Desk, job: str) -> None:
    printed = desk.run("evaluate", job, "--data", with_answers(""), "--json").json
    for tokens in ({"job": ["x", 1]}, {"job": [1]}, [], {"job": [-1, 0]}):
        printed["answers"][0]["tokens"] = tokens
        Path("e.json").write_text(json.dumps(printed))
        done = desk.run("advise", "--evaluation", "e.json")
        assert (done.code, "is not an evaluation" in done.err) == (2, True), tokens
    assert desk.run("advise", "--evaluation", "rows.jsonl").code == 2
