"""The file of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results.json"


def verdict(result: dict[str, Any]) -> str:
    """Whether the mark is reached, and whether the interval leaves that open."""
    low, high = result["interval"]
    found = "reached" if result["value"] >= result["mark"] else "missed"
    return f"{found}, but the interval includes the mark" if low < result["mark"] <= high else found


def store(name: str, result: dict[str, Any], file: Path = RESULTS) -> None:
    """Replace the entry's result. One with fewer rows is stored as ``NAME (quick)``, beside that with all rows."""
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results[f"{name} (quick)" if result["quick"] else name] = result
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
