"""Foreign text never controls the terminal: every command on a real one, in a pipe and as JSON."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import sys
import traceback
from pathlib import Path

import pytest
from tests.cli.conftest import Desk
from tests.cli.hostile_vendor import EVIL, NAMED

import cloudtune.cli
from cloudtune import plugins
from cloudtune.cli import data as data_commands
from cloudtune.cli.main import COMMANDS, cli
from cloudtune.cli.terminal import escaped, indented, json_escaped, one_line, styled, write

CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
OURS = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[0-9]*[AK])|\r")
"""What our own renderers write: colors, and how a display is redrawn in place."""

WORDS: dict[str, list[str]] = {
    "advise": ["--change", "x{NAMED}", "--rows", "x{NAMED}"],
    "init": ["new{NAMED}.yaml", "--model", "m{NAMED}", "--train", "{rows}"],
    "plan": ["job.yaml", "--requests"], "run": ["job.yaml", "--yes"],
    "submit": ["job.yaml", "--again"], "lr-find": ["x{NAMED}.yaml"], "watch": ["{ref}"],
    "jobs": ["--remote"], "show": ["{ref}"], "logs": ["{ref}"], "metrics": ["{ref}"], "checkpoints": ["{ref}"],
    "ledger check": [], "cost": [], "retirements": ["job.yaml"],
    "move": ["job.yaml", "--to", "local", "--model", "m{NAMED}"],
    "cancel": ["{ref}"], "pause": ["{ref}"], "resume": ["{ref}"], "delete": ["{ref}"], "deploy": ["{ref}", "--yes"],
    "deployments": ["--undeployed"], "sweep": [], "undeploy": ["x{NAMED}"],
    "generate": ["{ref}", "Is it {NAMED}?", "and this?"],
    "chat": ["{ref}", "--system", "{NAMED}"], "serve": ["x{NAMED}"],
    "predict": ["{ref}", "Is it {NAMED}?"],
    "evaluate": ["{ref}", "--data", "{good}", "--metric", "x{NAMED}"],
    "tune": ["job.yaml", "--set", "tune.x{NAMED}=1"],
    "report": ["{ref}", "--output", "out{NAMED}.html"],
    "compare": ["{ref}", "{ref}", "--data", "{rows}"],
    "import": ["folder{NAMED}", "--yes"], "export": ["{ref}", "to{NAMED}"],
    "backends": [], "methods": [], "catalog refresh": ["--backend", "x{NAMED}"],
    "models": ["--method", "x{NAMED}"], "schema": [], "config": ["show"],
    "doctor": ["scripted"], "emulate": ["--fault", "x{NAMED}"],
    "data check": ["{rows}"], "data convert": ["{rows}", "--to", "x{NAMED}"], "data split": ["{rows}", "--x{NAMED}"],
    "data dedupe": ["{rows}", "--x{NAMED}"], "data balance": ["{rows}", "--x{NAMED}"],
    "data preview": ["{good}", "-n", "9"],
    "data profile": ["{rows}", "--out", "no{NAMED}/page.html"], "data stats": ["{rows}"],
    "data rules": ["--for", "x{NAMED}"],
}  # fmt: skip


@pytest.fixture
def hostile(desk: Desk) -> Desk:
    """Rows, file names, the model's name, the vendor's words: all hostile. One job has ended, with a deployment."""
    ref = desk.submit()
    desk.finish(ref)
    entry = desk.site / "scripted-1.0.dist-info" / "entry_points.txt"
    entry.write_text("[cloudtune.backends]\nscripted = tests.cli.hostile_vendor:HostileBackend\n")
    plugins._all_entry_points.cache_clear()
    rows, good = desk.folder / f"rows{NAMED}.jsonl", desk.folder / f"good{NAMED}.jsonl"
    kept = [{"prompt": EVIL, "completion": f"{number}{EVIL}"} for number in range(12)]
    good.write_text("".join(json.dumps(row) + "\n" for row in kept))
    broken = [{"prompt": EVIL}, {"messages": [{"role": EVIL, "content": EVIL}]}, {EVIL.replace('"', ""): 1}]
    rows.write_text("".join(json.dumps(row) + "\n" for row in (*kept, *broken[:2])) + f"{{broken {EVIL}\n")
    spec = {"model": f"base-1{EVIL}", "data": {"train": str(good)}, "tags": {"note": EVIL}}
    (desk.folder / "job.yaml").write_text(json.dumps(spec))
    desk.words = {"ref": ref, "rows": str(rows), "good": str(good), "NAMED": NAMED}
    return desk


def words_of(desk: Desk, command: str) -> list[str]:
    return [*command.split(), *(word.format(**desk.words) for word in WORDS[command])]


def on_a_terminal(words: list[str]) -> str:
    """What a command writes to a terminal: a child on a pseudo-terminal of its own."""
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - the child
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "200"}
        try:
            cli.main(words, "cloudtune")
        except SystemExit:
            pass
        except BaseException:  # noqa: BLE001 - it must not go on as the test
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(0)
    reported = b""
    try:
        while block := os.read(terminal, 1 << 16):
            reported += block
    except OSError:  # the child has left
        pass
    os.close(terminal)
    os.waitpid(child, 0)
    return reported.decode("utf-8", "surrogateescape")


def controls(text: str) -> list[str]:
    return [
        f"{found.group()!r} in {text[max(found.start() - 30, 0) : found.end() + 30]!r}"
        for found in CONTROLS.finditer(text)
    ]


@pytest.mark.parametrize("command", WORDS)
def test_no_command_hands_control_to_foreign_text(hostile: Desk, command: str) -> None:
    words = words_of(hostile, command)
    drawn = on_a_terminal(words)
    assert "\x1b[31;8m" not in drawn
    assert controls(OURS.sub("", drawn)) == []
    piped = hostile.run(*words, *(["-vv"] if command != "schema" else []))
    assert controls(piped.out) == [] or command == "generate"
    assert controls(piped.err) == []
    stray = hostile.run(*words, f"--x{NAMED}")
    assert controls(stray.out + stray.err) == []
    if command not in ("schema", "init", "emulate", "ledger check"):
        assert "owned" in drawn + piped.out + piped.err + stray.err, "there was something to escape"


@pytest.mark.parametrize(
    "command", ["plan", "jobs", "show", "logs", "checkpoints", "deployments", "generate", "data check", "data preview"]
)
def test_json_holds_no_control_characters(hostile: Desk, command: str) -> None:
    done = hostile.run(*words_of(hostile, command), "--json")
    assert controls(done.out) == []
    assert isinstance(json.loads(done.out), dict)


def test_json_loses_nothing(hostile: Desk) -> None:
    document = hostile.run("show", hostile.words["ref"], "--json").json
    assert document["problem"]["message"] == EVIL


def test_an_answer_is_raw_in_a_pipe_and_escaped_on_a_terminal(hostile: Desk) -> None:
    words = ["generate", hostile.words["ref"], "hello"]
    assert EVIL in hostile.run(*words).out
    assert escaped(NAMED) in on_a_terminal(words).replace("\r\n", "\n")


def test_every_command_is_here() -> None:
    grouped = {f"data {name}" for name in data_commands.COMMANDS} | {"ledger check", "catalog refresh"}
    assert WORDS.keys() == (COMMANDS.keys() - {"data", "ledger", "catalog"}) | grouped


def test_all_output_goes_through_one_module() -> None:

    folder = Path(cloudtune.cli.__file__).parent
    writers = {"click.echo", "click.secho", "click.style", "print", "sys.stdout.write", "sys.stderr.write",
               "traceback.print_exception", "traceback.print_exc"}  # fmt: skip
    found = [
        f"{file.name}: {ast.unparse(node.func)}"
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in writers
    ]
    assert [place for place in found if not place.startswith("terminal.py")] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"), ("\x9b", "\\x9b"), ("a\x08b\x7f", "a\\x08b\\x7f"), ("\u202eabc", "\\u202eabc"),
        ("a\rb", "a\\rb"), ("a\r\nb\tc", "a\nb\tc"), ("\U000e0041", "\\U000e0041"), ("jo\u200db", "jo\\u200db"),
        ("क्\u200dष 👩\u200d💻", "क्\u200dष 👩\u200d💻"), ("naïve 日本 √", "naïve 日本 √"),
    ],
)  # fmt: skip
def test_control_characters_are_shown_and_other_text_stays(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_cell_is_one_line_and_later_lines_are_set_in() -> None:
    assert one_line("a\nb\tc") == "a\\nb\\tc"
    assert indented("a\nb", 2) == "a\n  b"


def test_our_own_styling_passes_and_nobody_elses(capsys: pytest.CaptureFixture[str]) -> None:
    write(styled("ok\x1b[0m", fg="green").replace("\n", ""))
    assert "\x1b[" not in capsys.readouterr().out, "click takes styling out where nobody looks"


@pytest.mark.parametrize("text", [EVIL, "\U000e0041", "\u200d", "plain"])
def test_json_escapes_are_lossless(text: str) -> None:
    document = json.dumps({text: text}, ensure_ascii=False)
    assert json.loads(json_escaped(document)) == {text: text}
    assert controls(json_escaped(document)) == []
