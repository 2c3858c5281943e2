"""Quick commands stay quick: they load no torch, no vendor's SDK and nothing else that is slow to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "accelerate", "azure", "boto3", "botocore", "cloudtune_providers", "cloudtune_trainer", "datasets", "gguf",
    "matplotlib", "mlflow",
    "moto", "numpy", "openai", "pandas", "peft", "pyarrow", "pytest", "safetensors", "sagemaker", "torch",
    "transformers", "trl",
}  # fmt: skip

RUN = """
import atexit, json, sys
from importlib.metadata import entry_points
atexit.register(lambda: print("\\nLOADED " + json.dumps(sorted(sys.modules))))
if sys.argv[1:] == ["import"]:
    import cloudtune
else:
    sys.argv[0] = "cloudtune"
    (script,) = entry_points(group="console_scripts", name="cloudtune")
    sys.exit(script.load()())
"""


def _loaded(tmp_path: Path, *words: str) -> set[str]:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads(done.stdout.rpartition("LOADED ")[2]))


@pytest.mark.parametrize("words", [("import",), ("--help",), ("run", "--help"), ("jobs",), ("schema",)], ids=" ".join)
def test_it_loads_nothing_heavy(words: tuple[str, ...], tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, *words)
    assert "cloudtune" in loaded
    assert not {name for name in loaded if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)}


@pytest.mark.parametrize("words", [(), ("--for", "openai", "--model", "gpt-4.1-2025-04-14")], ids=["alone", "for"])
def test_checking_rows_loads_no_sdk(words: tuple[str, ...], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "{n}?", "completion": "{n}!"}}\n' for n in range(12)), encoding="utf-8")
    loaded = _loaded(tmp_path, "data", "check", str(rows), *words)
    sdks = HEAVY - {"cloudtune_providers"}
    assert not {name for name in loaded if name.partition(".")[0] in sdks}


def test_importing_cloudtune_loads_none_of_its_modules(tmp_path: Path) -> None:
    assert {name for name in _loaded(tmp_path, "import") if name.partition(".")[0] == "cloudtune"} == {"cloudtune"}
