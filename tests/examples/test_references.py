"""The program that compares results on real weights with published marks."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

REFERENCES = Path(__file__).resolve().parents[2] / "benchmarks" / "references"


def test_a_result_of_fewer_rows_replaces_no_full_one(tmp_path: Path) -> None:
    store, file = runpy.run_path(str(REFERENCES / "results.py"))["store"], tmp_path / "results.json"
    for quick, value in ((False, 0.5), (False, 0.75), (True, 0.25)):
        store("topics", {"quick": quick, "value": value}, file)
    results = json.loads(file.read_text(encoding="utf-8"))
    assert {name: result["value"] for name, result in results.items()} == {"topics": 0.75, "topics (quick)": 0.25}
