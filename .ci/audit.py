"""Looks every locked distribution up in the advisory database, by pip-audit. Run by ``make audit``.

The database needs a network. Where it cannot be reached, this says "not run" and succeeds: a build without a network
must not fail, and must not look audited either.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements/all.txt"


def main() -> int:
    """0 if nothing is known against any of them, or nobody could be asked; 1 if something is."""
    text = (ROOT / LOCK).read_text(encoding="utf-8")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as first:
        first.write(next(line.rstrip("\\ ") for line in text.splitlines() if "==" in line) + "\n")
        first.flush()
        if not _audited(first.name):  # ask about one before asking about all
            sys.stdout.write("pip-audit: not run: the advisory database cannot be reached\n")
            return 0
    audited = _audited(LOCK)
    known = [(entry, advisory) for entry in audited for advisory in entry["vulns"]]
    for entry, advisory in known:
        fixed = ", ".join(advisory["fix_versions"]) or "no version"
        sys.stdout.write(f"{entry['name']} {entry['version']}: {advisory['id']}, fixed in {fixed}\n")
    sys.stdout.write(f"pip-audit: {len(audited)} of {text.count('==')} audited, {len(known)} advisories\n")
    return 1 if known else 0


def _audited(requirements: str) -> list[dict[str, Any]]:
    """Those that the database knows; none where it cannot be reached."""
    command = [
        sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json",
        "-r", requirements,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        sys.stderr.write(done.stderr)
        return []
    return [entry for entry in found if "skip_reason" not in entry]


if __name__ == "__main__":
    sys.exit(main())
