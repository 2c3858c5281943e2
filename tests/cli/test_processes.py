"""What only a real process shows: signals, pipes, terminals, encodings, what is loaded, what is left behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

PATIENCE_S = 45.0
INSIST_S = 4.0


def _take_terminal() -> None:
    """Make the standard input the new session's terminal, so that Ctrl-C on it is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command on a terminal, with somebody who reads and types."""

    def __init__(self, desk: Desk, *words: str, columns: int = 100, **environment: str) -> None:
        self.master, slave = pty.openpty()
        env = desk.environment(TERM="xterm-256color", COLUMNS=str(columns), LINES="40", **environment)
        self.process = subprocess.Popen(
            desk.command(*words), cwd=desk.folder, env=env, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_take_terminal,  # noqa: PLW1509 - one call that takes no lock
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def read_until(self, pattern: str) -> str:
        """All that has been shown, once the pattern is among it."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.text):
            if time.monotonic() > deadline or not self._more(0.2):
                break
        assert re.search(pattern, self.text), self.text
        return self.text

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self.master, text.encode())

    def end(self, insist: str = "") -> int:
        """Wait until the command has ended, and return its exit code. ``insist`` is typed again every few seconds."""
        deadline, typed = time.monotonic() + PATIENCE_S, time.monotonic()
        while self._more(0.2) and self.process.poll() is None and time.monotonic() < deadline:
            if insist and time.monotonic() - typed > INSIST_S:
                self.type(insist)
                typed = time.monotonic()
        while self._more(0.05):
            if not select.select([self.master], [], [], 0.05)[0]:
                break
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            os.close(self.master)

    def _more(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            found = os.read(self.master, 65536)
        except OSError:  # the other side has closed
            return False
        self.text += found.decode(errors="replace")
        return bool(found)


def _started(desk: Desk, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        desk.command(*words), cwd=desk.folder, env=desk.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


# -- Ctrl-C --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_leaves_the_job_alone_and_says_how_to_come_back(slow: Desk, as_json: bool) -> None:
    ref = slow.submit()
    watch = _started(slow, "watch", ref, *(["--json"] if as_json else []))
    assert watch.stderr is not None
    assert watch.stderr.readline()  # it is watching
    watch.send_signal(signal.SIGINT)
    out, err = watch.communicate(timeout=PATIENCE_S)
    assert watch.returncode == 5
    assert f"cloudtune watch {ref}" in err
    assert "Traceback" not in err
    assert len(slow.vendor.jobs(alive=True)) == 1
    if as_json:
        import json

        document = json.loads(out)
        assert (document["ref"], document["detached"]) == (ref, True)


def test_ctrl_c_before_the_job_is_made_can_be_taken_up_again(slow: Desk) -> None:
    from cloudtune.testing import faults

    slow.vendor.fail("create_job", faults.delay(30.0))
    submit = _started(slow, "submit", "job.yaml")
    deadline = time.monotonic() + PATIENCE_S
    while not slow.vendor.files() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    submit.send_signal(signal.SIGINT)
    out, err = submit.communicate(timeout=PATIENCE_S)
    assert (submit.returncode, out) == (1, "")
    assert "run the same command again" in err
    assert "Traceback" not in err
    slow.vendor.heal()
    assert slow.spawn("submit", "job.yaml").code == 0
    assert len(slow.vendor.jobs()) == 1


# -- a terminal ----------------------------------------------------------------------------------------------------


def test_run_asks_on_a_terminal_and_draws(desk: Desk) -> None:
    terminal = Terminal(desk, "run", "job.yaml")
    shown = terminal.read_until(r"Submit this\? \[y/N\]")
    assert "Plan for job on scripted" in shown
    assert desk.vendor.jobs() == []
    terminal.type("y\n")
    shown = terminal.read_until("tuned model: ")
    assert terminal.end() == 0
    assert "━" in shown  # the bar
    assert "10/10" in shown
    assert "Ctrl-C to stop watching" in shown
    assert len(desk.vendor.jobs()) == 1


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x03", "\x04"], ids=["no", "enter", "ctrl-c", "ctrl-d"])
def test_anything_but_yes_is_no(desk: Desk, answer: str) -> None:
    terminal = Terminal(desk, "run", "job.yaml")
    terminal.read_until(r"Submit this\?")
    terminal.type(answer)
    # Python forgets a Ctrl-C in the moment between showing a prompt and reading the line; people press it again.
    assert terminal.end(insist=answer if answer == "\x03" else "") == 7
    assert "aborted" in terminal.text
    assert desk.vendor.files() == []


def test_ctrl_c_on_a_terminal_restores_it(slow: Desk) -> None:
    terminal = Terminal(slow, "run", "job.yaml", "--yes", columns=60)
    terminal.read_until(r"Ctrl-C to stop watching")
    terminal.type("\x03")
    assert terminal.end() == 5
    assert "watch it again" in terminal.text
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")  # the cursor is there again
    assert len(slow.vendor.jobs(alive=True)) == 1


def test_init_asks_for_what_is_missing(desk: Desk) -> None:
    terminal = Terminal(desk, "init", "asked.yaml")
    terminal.read_until("Base model")
    terminal.type("base-1\n")
    terminal.read_until("Training data file")
    terminal.type("rows.jsonl\n")
    assert terminal.end() == 0
    assert desk.run("plan", "asked.yaml", "--set", "validation.every=").code == 0


def test_a_narrow_terminal_loses_no_id(slow: Desk) -> None:
    ref = slow.submit()
    terminal = Terminal(slow, "jobs", columns=40)
    assert terminal.end() == 0
    assert ref.rpartition(":")[2] in terminal.text


def test_colours_are_for_terminals_that_want_them(desk: Desk) -> None:
    desk.submit()
    assert "\x1b[" not in desk.spawn("jobs").out
    terminal = Terminal(desk, "jobs", NO_COLOR="1")
    terminal.end()
    assert "\x1b[3" not in terminal.text


# -- pipes and encodings -------------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_error_message(desk: Desk) -> None:
    for seed in range(3):
        desk.submit("--set", f"seed={seed}")
    shell = f"{desk.command('schema')[0]} schema | head -c 10; echo; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=desk.folder, env=desk.environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # 0 if all had been written before the reader went
    for words in (["jobs"], ["backends", "scripted", "--json"], ["show", "nothing", "--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        gone = subprocess.run(
            desk.command(*words), cwd=desk.folder, env=desk.environment(), stdout=writer, stderr=subprocess.PIPE,
            check=False,
        )  # fmt: skip
        os.close(writer)
        assert gone.stderr == b""
        assert gone.returncode == 1


def test_what_the_terminal_cannot_show_ends_in_no_error(desk: Desk) -> None:
    poor = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    Path("job.yaml").write_text("model: 日本\ndata: {train: rows.jsonl}\n", encoding="utf-8")
    plan = desk.spawn("plan", "job.yaml", **poor)
    assert plan.code == 0, plan.err
    assert r"model \u65e5\u672c" in plan.out
    document = desk.spawn("plan", "job.yaml", "--json", **poor)
    assert document.json["spec"]["model"] == "日本"  # still JSON, whatever the encoding
    failed = desk.spawn("plan", "job.yaml", "--set", "data.train=日.jsonl", **poor)
    assert failed.code == 2
    assert "Traceback" not in failed.err


def test_talk_and_results_do_not_mix(desk: Desk) -> None:
    done = desk.spawn("run", "job.yaml", "--yes")
    assert done.code == 0
    assert re.fullmatch(r"scripted:\S+:\S+\n", done.out)
    assert "\x1b" not in done.err
    assert "\r" not in done.err
    assert "step 10/10" in done.err
    quiet = desk.spawn("run", "job.yaml", "--yes", "-q")
    assert (quiet.out, quiet.err) == (done.out, "")


# -- errors --------------------------------------------------------------------------------------------------------


def test_a_fault_of_our_own_shows_where_only_when_asked(desk: Desk) -> None:
    (desk.site / "broken.py").write_text(
        "from cloudtune.testing.scripted import ScriptedBackend\n"
        "class Backend(ScriptedBackend):\n"
        "    name = 'broken'\n"
        "    def plan(self, request):\n"
        "        raise RuntimeError('boom')\n"
    )
    with (desk.site / "scripted-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("broken = broken:Backend\n")
    plain = desk.spawn("plan", "job.yaml", "--backend", "broken")
    assert plain.code == 1
    assert "internal error: RuntimeError: boom" in plain.err
    assert "Traceback" not in plain.err
    loud = desk.spawn("plan", "job.yaml", "--backend", "broken", "-vv")
    assert loud.code == 1
    assert "Traceback" in loud.err
    (desk.site / "broken.py").write_text("raise RuntimeError('boom')\n")
    listed = desk.spawn("backends")
    assert listed.code == 0
    assert "RuntimeError: boom" in listed.out


def test_without_a_home_to_write_in_reading_works_and_submitting_says_why(desk: Desk) -> None:
    (desk.folder / "flat").write_text("")
    home = {"CLOUDTUNE_HOME": str(desk.folder / "flat" / "home")}
    assert desk.spawn("jobs", **home).code == 0
    failed = desk.spawn("submit", "job.yaml", **home)
    assert failed.code == 1
    assert "ledger" in failed.err
    assert "Traceback" not in failed.err
    assert desk.vendor.jobs() == []


def test_no_secret_stands_in_any_output_or_file(desk: Desk) -> None:
    secret = "hush-hush-hush"
    from cloudtune.testing import ScriptedVendor

    (desk.folder / "vendor.db").unlink()
    ScriptedVendor(desk.folder / "vendor.db", api_key=secret, processing_s=0.0)
    desk.configure(desk.config.read_text() + 'api_key = "${VENDOR_KEY}"\n')
    outputs = [
        desk.spawn(*words, VENDOR_KEY=secret)
        for words in (
            ("plan", "job.yaml", "--requests", "-vv"), ("submit", "job.yaml", "-vv"), ("config", "show"),
            ("doctor",), ("jobs", "--json"), ("backends", "--json"),
        )
    ]  # fmt: skip
    outputs.append(desk.spawn("doctor", VENDOR_KEY="wrong-" + secret))
    assert [done.code for done in outputs] == [0] * 6 + [2]
    assert not any(secret in done.out + done.err for done in outputs)
    kept = [path for path in desk.home.rglob("*") if path.is_file()]
    assert kept
    assert not any(secret.encode() in path.read_bytes() for path in kept)
    missing = desk.spawn("submit", "job.yaml")
    assert missing.code == 2
    assert "cloudtune.toml:4: backends.scripted.api_key: the environment variable VENDOR_KEY is not set" in missing.err


# -- what is loaded ------------------------------------------------------------------------------------------------


def test_help_and_version_load_next_to_nothing(desk: Desk) -> None:
    probe = (
        "import sys, atexit; sys.argv = ['cloudtune', *sys.argv[1:]]\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sorted(sys.modules))))\n"
        "from cloudtune.cli.main import main; main()"
    )
    heavy = {"pydantic", "rich", "ruamel", "msgspec", "torch", "transformers", "numpy", "psutil", "tenacity"}
    for words in (["--help"], ["--version"]):
        done = subprocess.run(
            [desk.command()[0].replace("cloudtune", "python"), "-c", probe, *words], env=desk.environment(),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert not heavy & {name.partition(".")[0] for name in done.stderr.split()}


def test_completion_is_clicks_own(desk: Desk) -> None:
    script = desk.spawn(_CLOUDTUNE_COMPLETE="bash_source")
    assert script.code == 0
    assert "_cloudtune_completion" in script.out
    words = desk.spawn(_CLOUDTUNE_COMPLETE="bash_complete", COMP_WORDS="cloudtune check", COMP_CWORD="1")
    assert "checkpoints" in words.out


def test_many_at_once_make_one_job(slow: Desk) -> None:
    several = [_started(slow, "submit", "job.yaml") for _ in range(4)]
    outs = {process.communicate(timeout=PATIENCE_S)[0] for process in several}
    assert [process.returncode for process in several] == [0] * 4
    assert len(outs) == 1
    assert len(slow.vendor.jobs()) == 1
