"""A folder to work in, with a scripted vendor behind the command line: in this process, or in real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cloudtune.cli.main import cli
from cloudtune.config.trust import trust
from cloudtune.testing import Script, ScriptedVendor

QUICK = Script(queue_s=0.0, prepare_s=0.05, step_s=0.02, steps=10, checkpoint_every=5, stop_s=0.05)
SLOW = Script(queue_s=0.0, prepare_s=0.0, step_s=2.0, steps=300, checkpoint_every=50, stop_s=0.05)
ROWS = [{"prompt": f"What is {number}?", "completion": f"It is {number}."} for number in range(20)]
SPEC = "model: base-1\ndata:\n  train: rows.jsonl\nhyperparameters: {epochs: 2}\n"


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.out)


class Desk:
    """An interactive terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.home = folder / "home"
        self.vendor = ScriptedVendor(folder / "vendor.db", processing_s=0.0, script=QUICK)
        info = self.site / "scripted-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1.0\n")
        target = "cloudtune.testing.scripted:ScriptedBackend"
        (info / "entry_points.txt").write_text(f"[cloudtune.backends]\nscripted = {target}\n")
        (folder / "cloudtune.toml").write_text(
            f'backend = "scripted"\n[backends.scripted]\nstore = "{folder / "vendor.db"}"\n'
        )
        self.config = folder / "cloudtune.toml"
        (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
        (folder / "job.yaml").write_text(SPEC)

    def configure(self, text: str) -> None:
        """Write the project's configuration, and trust it."""
        self.config.write_text(text)
        trust(self.config, self.config.read_bytes())

    def run(self, *words: str, input: str | None = None) -> Answer:  # noqa: A002 - as click calls it
        """Run a command in this process."""
        done = CliRunner().invoke(cli, words, input=input)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Answer(done.exit_code, done.stdout, done.stderr)

    def environment(self, **more: str) -> dict[str, str]:
        """For a process of its own."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.site), *sys.path[1:]]), **more}

    def command(self, *words: str) -> list[str]:
        """The script that was installed, as a person would call it."""
        return [str(Path(sys.executable).with_name("cloudtune")), *words]

    def spawn(self, *words: str, input: str | None = None, **environment: str) -> Answer:  # noqa: A002
        """Run a command in a process of its own."""
        done = subprocess.run(
            self.command(*words), cwd=self.folder, env=self.environment(**environment), input=input,
            capture_output=True, text=True, check=False,  # the test's own limit is the only one
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    def submit(self, *words: str) -> str:
        """A job, by its reference."""
        done = self.run("submit", "job.yaml", *words)
        assert done.code == 0, done.err
        return done.out.strip()

    def finish(self, ref: str) -> None:
        """Let the rest of the job's life happen at once."""
        self.vendor.advance(ref.rpartition(":")[2], 1e6)


@pytest.fixture
def desk(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk of its own for each test."""
    made = Desk(memory_path.resolve())
    for name in [name for name in os.environ if name.startswith("CLOUDTUNE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDTUNE_HOME", str(made.home))
    monkeypatch.setenv("HOME", str(made.folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(made.folder / "xdg"))
    monkeypatch.delenv("XDG_STATE_HOME")
    made.configure(made.config.read_text())
    monkeypatch.syspath_prepend(str(made.site))
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture
def slow(desk: Desk) -> Desk:
    """A desk whose jobs go on until somebody interferes."""
    desk.vendor.follow(SLOW)
    return desk
