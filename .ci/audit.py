"""Looks every locked distribution up in the advisory database, by pip-audit. Run by ``make audit``.

The database needs a network. Where it cannot be reached, this says "not run" and succeeds: a build without a network
must not fail, and must not look audited either.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements/all.txt"


def main() -> int:
    """0 if nothing is known against any of them, or nobody could be asked; 1 if something is."""
    command = [
        sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json",
        "-r", LOCK,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        sys.stdout.write(f"pip-audit: not run: {reason}\n")
        return 0
    audited = [entry for entry in found if "skip_reason" not in entry]
    if not audited:
        sys.stdout.write("pip-audit: not run: the advisory database does not answer for any distribution\n")
        return 0
    known = [(entry, advisory) for entry in audited for advisory in entry["vulns"]]
    for entry, advisory in known:
        fixed = ", ".join(advisory["fix_versions"]) or "no version"
        sys.stdout.write(f"{entry['name']} {entry['version']}: {advisory['id']}, fixed in {fixed}\n")
    skipped = len(found) - len(audited)
    sys.stdout.write(f"pip-audit: {len(audited)} audited, {skipped} not found, {len(known)} advisories\n")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
