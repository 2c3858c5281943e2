"""The program of docs/tune.md, with the spec of that page: real training of a tiny model, and real answers."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from cloudtune_trainer.tiny import write_tiny_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tune.md"
TOPICS = {"business": "bank profit shares market deal", "sport": "goal match team coach cup",
          "tech": "phone software chip web robot"}  # fmt: skip


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def write_rows(folder: Path, counts: dict[str, int]) -> None:
    """Rows whose words show their topic, and a model that has never seen one."""
    rng = random.Random(1)
    for split, count in counts.items():
        rows = []
        for number in range(count):
            topic = sorted(TOPICS)[number % 3]
            words = rng.sample(TOPICS[topic].split(), 2) + rng.sample(["today", "new", "big", "late", "old"], 2)
            rng.shuffle(words)
            rows.append({"prompt": " ".join(words), "completion": topic})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_tiny_model(folder / "model", vocab_texts=[(folder / f"{split}.jsonl").read_text() for split in counts])


@pytest.mark.starts_trainer
@pytest.mark.parametrize(
    ("trials", "seeds"), [(2, 0), pytest.param(8, 3, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_the_program_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trials: int, seeds: int
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "home"))
    write_rows(tmp_path, {"train": 30 * trials, "validation": 40, "test": 90})
    spec = block("yaml").replace("trials: 8", f"trials: {trials}").replace("seeds: 3", f"seeds: {seeds}")
    Path("job.yaml").write_text(spec, encoding="utf-8")
    exec(compile(block("python"), str(PAGE), "exec"), {})
    *printed, verdict = capsys.readouterr().out.splitlines()
    assert len(printed) == trials
    assert float(printed[1].split()[-1]) < float(printed[0].split()[-1])
    assert verdict.startswith("Tuning was worth" if seeds else "loss on the validation rows")
