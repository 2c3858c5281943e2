"""One evaluation through several back ends: the same model and rows give the same table everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.contract.test_bedrock_storms import model_folder
from tests.emulator.access import admin
from tests.emulator.aws_desk import CITIES, at_home
from tests.emulator.conftest import MODEL

from cloudtune.cli.main import cli
from cloudtune.client import Client
from cloudtune.evaluation.result import EvaluateOptions, Evaluation
from cloudtune.spec import JobSpec
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator

NOVA = "amazon.nova-micro-v1:0:128k"
LABELS = ("sport", "trade", "music")


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def run(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    return json.loads(done.stdout)


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(Settings(deploying_s=1.0), scale=1000) as emulator:
        emulator.script = Script(running_s=10.0)
        at_home(emulator, tmp_path, monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield emulator


def test_vendors_give_the_same_table(emulator: Emulator) -> None:
    # The script engine answers a question of the training file with that file's answer.
    learnt = [{"prompt": f"headline {n}", "completion": LABELS[n % 3]} for n in range(30)]
    write("rows.jsonl", learnt)
    write("test.jsonl", [*learnt[:20], *({**row, "completion": "music"} for row in learnt[20:])])
    Path("job.yaml").write_text(
        f"name: mine\nmodel: {{openai: {MODEL}, bedrock: '{NOVA}'}}\ndata: {{train: rows.jsonl}}\n"
        "evaluation: {data: test.jsonl, max_tokens: 8}\n"
    )
    on_openai = run("run", "job.yaml", "--backend", "openai", "--yes")
    on_bedrock = run("run", "job.yaml", "--backend", "bedrock", "--yes")
    assert "is not deployed" in on_bedrock["evaluation_error"]  # the job has succeeded nevertheless
    run("deploy", on_bedrock["ref"], "--yes")
    deployed = run("evaluate", on_bedrock["ref"])
    direct = run("evaluate", f"openai={on_openai['model_id']}", "--data", "test.jsonl", "--max-tokens", "8")
    table = {one["role"]: one["scores"] for one in on_openai["evaluation"]["models"]}
    assert {one["role"]: one["scores"] for one in deployed["models"]} == table
    assert direct["models"][0]["scores"] == table["tuned"]
    assert [one["verdict"] for one in deployed["comparisons"]] == [
        one["verdict"] for one in on_openai["evaluation"]["comparisons"]
    ]
    assert table["tuned"]["accuracy"]["value"] == (20 + 4) / 30


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def asks_for_the_weather(number: int, city: str) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
    user, assistant = {"role": "user", "content": f"weather {number}"}, {"role": "assistant", "tool_calls": [call]}
    return {"messages": [user, assistant], "tools": [TOOL]}


def test_tool_calls_are_measured_where_tools_can_be_sent(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    write("rows.jsonl", [asks_for_the_weather(n, "Bonn") for n in range(30)])
    write("test.jsonl", [asks_for_the_weather(n, "Bonn" if n < 20 else "Kiev") for n in range(30)])
    Path("job.yaml").write_text(
        f"name: mine\nmodel: {{openai: {MODEL}, bedrock: '{NOVA}'}}\ndata: {{train: rows.jsonl}}\n"
        "evaluation: test.jsonl\n"
    )
    found = run("run", "job.yaml", "--backend", "openai", "--yes")
    table = {one["role"]: one["scores"] for one in found["evaluation"]["models"]}
    assert {name: score["value"] for name, score in table["tuned"].items()} == {
        "tool_call_match": 20 / 30, "tool_name_match": 1.0
    }  # fmt: skip
    assert table["base"]["tool_call_match"]["value"] == 0.0
    refused = run("evaluate", f"bedrock={NOVA}", "--data", "test.jsonl", code=2)["error"]["message"]
    assert "some rows have tools" in refused
    assert "cloudtune does not send tools to bedrock" in refused
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__OPENAI__ANSWERS", "responses")
    refused = run("evaluate", found["ref"], "--data", "test.jsonl", code=2)["error"]["message"]
    assert "only with answers = chat" in refused
    words = ("evaluate", found["ref"], "--data", "test.jsonl", "--few-shot", "2")
    assert "cannot have examples" in run(*words, code=2)["error"]["message"]


def test_a_deployment_on_azure_is_given_tools(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__AZURE_OPENAI__LIST_LAG", "0.1")
    write("rows.jsonl", [asks_for_the_weather(n, "Bonn") for n in range(30)])
    Path("job.yaml").write_text(f"name: mine\nmodel: {MODEL}\ndata: {{train: rows.jsonl}}\n")
    ref = run("run", "job.yaml", "--backend", "azure_openai", "--yes")["ref"]
    run("deploy", ref, "--yes")
    found = run("evaluate", ref, "--data", "rows.jsonl", "--no-baselines")
    assert found["models"][0]["scores"]["tool_call_match"]["value"] == 1.0


def test_the_cost_is_estimated_limited_and_counted(emulator: Emulator) -> None:
    write("rows.jsonl", [{"prompt": f"headline {n}", "completion": LABELS[n % 3]} for n in range(30)])
    Path("job.yaml").write_text(f"name: mine\nmodel: {MODEL}\ndata: {{train: rows.jsonl}}\n")
    ref = run("run", "job.yaml", "--backend", "openai", "--yes")["ref"]
    words = ("evaluate", ref, "--data", "rows.jsonl", "--max-tokens", "8")
    unpriced = "o4-mini-2025-04-16"
    refused = run(*words, "--against", f"openai={unpriced}", "--max-cost-usd", "5", code=7)["error"]["message"]
    assert f"the limit of 5 USD cannot be kept, because the price of {unpriced} is not known" in refused
    refused = run(*words, "--no-baselines", "--max-cost-usd", "0.0001", code=7)["error"]["message"]
    assert "the answers may cost up to 0.00" in refused
    done = CliRunner().invoke(cli, [*words, "--no-baselines", "--max-cost-usd", "5", "--json"])
    assert "cost of 30 answers: about 0.0" in done.stderr
    (usage,) = json.loads(done.stdout)["usage"].values()
    paid = (0.8 * usage["prompt_tokens"] + 3.2 * usage["completion_tokens"]) / 1e6
    assert usage["usd"] == pytest.approx(paid, abs=1e-4)
    assert run(*words, "--no-baselines", "--max-cost-usd", "0.0001")["usage"]  # all are stored
    judge = ("--judge", f"openai={unpriced}", "--max-cost-usd", "5")
    Path("rubric.txt").write_text("It is one word.")
    refused = run(*words, "--no-baselines", *judge, "--rubric", "rubric.txt", code=7)["error"]["message"]
    assert f"the price of judge {unpriced} is not known" in refused
    # A reasoning model rejects any temperature that is not its default.
    found = run(*words, "--no-baselines", *judge[:2], "--rubric", "rubric.txt")
    assert found["judged"]["models"][0]["unclear"] == 30


def test_an_import_is_evaluated_without_training_rows(emulator: Emulator, tmp_path: Path) -> None:
    write("test.jsonl", [{"prompt": f"headline {n}", "completion": LABELS[n % 3]} for n in range(30)])
    ref = run("import", str(model_folder(tmp_path, 1)), "--to", "bedrock", "--name", "brought", "--yes")["ref"]
    found = run("evaluate", ref, "--data", "test.jsonl")
    assert [one["role"] for one in found["models"]] == ["tuned", "majority"]
    assert any("its base model is not available" in note for note in found["notes"])
    assert not found["overlap"]["checked"]
    assert "the spec of the model has no evaluation" in run("evaluate", ref, code=2)["error"]["message"]


class Trained:
    """A model that the emulator's train engine made for OpenAI's API, trained again here, and imported into Bedrock."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.client = Client(ledger=f"sqlite:///{folder}/ledger.db")
        spec = {
            "name": "codes", "model": MODEL, "data": {"train": str(folder / "rows.jsonl")}, "seed": 3,
            "hyperparameters": {"epochs": 6, "batch_size": 4},
        }  # fmt: skip
        openai = self.client.submit(JobSpec.model_validate(spec), backend="openai")
        openai.wait(timeout=300)
        runs = {one["id"]: one["spec"] for one in admin(emulator, "runs")["runs"]}
        local = self.client.submit(JobSpec.model_validate(runs[openai.ref.id]), backend="local")
        local.wait(timeout=300)
        bedrock = self.client.import_model(local, backend="bedrock", name="codes")
        bedrock.wait(timeout=300)
        self.jobs = {"openai": openai, "local": local, "bedrock": bedrock}

    def evaluate(self, backend: str, data: str) -> Evaluation:
        options = EvaluateOptions(max_tokens=24, baselines=False, metrics=("exact_match", "chrf"))
        return self.client.evaluate(self.jobs[backend], data, options=options)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.starts_trainer
def test_one_trained_model_has_one_table_on_three_back_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Code of {city}?", "completion": f"Code {city[:2].upper()}."} for city in CITIES]
    write("rows.jsonl", rows * 20)
    write("test.jsonl", [*rows, *({"prompt": f"Code of {city}?", "completion": "None."} for city in ("bonn", "kiev"))])
    with Emulator(Settings(engine="train", deploying_s=0.0)) as emulator:
        at_home(emulator, tmp_path, monkeypatch)
        trained = Trained(emulator, tmp_path)
        found = {backend: trained.evaluate(backend, "test.jsonl") for backend in trained.jobs}
    (local,) = found["local"].models
    assert local.scores["exact_match"].value == 4 / 6
    for backend, evaluation in found.items():
        (model,) = evaluation.models
        assert model.scores == local.scores, backend
        answers = [[*row["answers"].values()] for row in evaluation.answers]
        assert answers == [[*row["answers"].values()] for row in found["local"].answers], backend
