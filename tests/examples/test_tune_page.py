"""The program of docs/tune.md, with the spec of that page."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from tests.local.backend.submitting import scripted_python

from cloudtune.config.config import USER_FILE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tune.md"
TOPICS = {"business": "bank profit shares market deal", "sport": "goal match team coach cup",
          "tech": "phone software chip web robot"}  # fmt: skip


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def write_rows(folder: Path, counts: dict[str, int]) -> None:
    """Rows whose words show their topic."""
    rng = random.Random(1)
    for split, count in counts.items():
        rows = []
        for number in range(count):
            topic = sorted(TOPICS)[number % 3]
            words = rng.sample(TOPICS[topic].split(), 2) + rng.sample(["today", "new", "big", "late", "old"], 2)
            rng.shuffle(words)
            rows.append({"prompt": " ".join(words), "completion": topic})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_page(trials: int, seeds: int, *, model: str = "./model") -> None:
    """Run the program of the page with its spec in the current folder."""
    spec = block("yaml").replace("trials: 8", f"trials: {trials}").replace("seeds: 3", f"seeds: {seeds}")
    Path("job.yaml").write_text(spec.replace("./model", model), encoding="utf-8")
    exec(compile(block("python"), str(PAGE), "exec"), {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    for name in ("CLOUDTUNE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path


def test_the_program_of_the_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the real back end with real workers. Only the trainer is replaced: see `rate_trainer`."""
    settings = folder / "home" / "cloudtune" / USER_FILE
    settings.parent.mkdir(parents=True)
    python = scripted_python(folder, Path(__file__).with_name("rate_trainer.py"))
    settings.write_text(f'[backends.local]\npython = "{python}"\n', encoding="utf-8")
    write_rows(folder, {"train": 60, "validation": 6, "test": 6})
    Path("tiny.json").write_text('{"model": {"hidden_size": 8}}', encoding="utf-8")
    run_page(3, 0, model="./tiny.json")
    *printed, verdict = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["0", "1", "2"]
    assert [float(line.split()[-1]) <= 4.0 for line in printed] == [True] * 3
    assert verdict.startswith("loss on the validation rows: ")
    assert "originally 4" in verdict


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.starts_trainer
def test_the_program_of_the_page_trains(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cloudtune_trainer.tiny import write_tiny_model

    counts = {"train": 240, "validation": 40, "test": 90}
    write_rows(folder, counts)
    write_tiny_model(folder / "model", vocab_texts=[(folder / f"{split}.jsonl").read_text() for split in counts])
    run_page(8, 3)
    *printed, verdict = capsys.readouterr().out.splitlines()
    assert len(printed) == 8
    assert float(printed[1].split()[-1]) < float(printed[0].split()[-1])
    assert verdict.startswith("Tuning was worth")
