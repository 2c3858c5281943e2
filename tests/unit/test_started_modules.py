"""Our own modules are started so that a file in the working directory cannot take their place."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.data.read.plain_blocks import compiled

REPOSITORY = Path(__file__).resolve().parents[2]
STARTS = [
    (path.relative_to(REPOSITORY).as_posix(), node)
    for root in ("src", "providers", "local_backend")
    for path in sorted((REPOSITORY / root).rglob("*.py"))
    if '"-m"' in (text := path.read_text(encoding="utf-8"))  # few files: every worker runs this when it collects tests
    for node in ast.walk(ast.parse(text))
    if isinstance(node, ast.List) and any(isinstance(item, ast.Constant) and item.value == "-m" for item in node.elts)
]


@pytest.mark.parametrize(("where", "node"), STARTS, ids=[f"{where}:{node.lineno}" for where, node in STARTS])
def test_a_module_is_started_with_a_safe_path(where: str, node: ast.List) -> None:
    words = [item.value for item in node.elts if isinstance(item, ast.Constant)]
    assert "-P" in words[: words.index("-m")], f"{where}: without -P, Python imports from the working directory first"


def test_there_are_such_starts() -> None:
    assert len(STARTS) > 5


@pytest.mark.skipif(compiled() is None, reason="worker processes are for the compiled check")
def test_workers_import_nothing_from_the_working_directory(tmp_path: Path) -> None:
    for name in ("msgspec.py", "cloudtune.py"):
        (tmp_path / name).write_text("from pathlib import Path\nPath('executed').touch()\nraise SystemExit(3)\n")
    row = json.dumps({"prompt": "a" * 400, "completion": "b"})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 1000)
    code = (
        "import sys; from cloudtune.data.checks import worker_pool; worker_pool.WORTH_BYTES = 1\n"
        "from cloudtune.cli.main import cli; cli(['data', 'check', 'rows.jsonl'])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1,000" in done.stdout + done.stderr, done.stderr
    assert not (tmp_path / "executed").exists()
