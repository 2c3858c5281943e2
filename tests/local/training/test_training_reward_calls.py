"""Rewards: what a function gets, every failure as one clear error, an endpoint, and a reward model."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import marshal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune_trainer.policy_spec import Reward
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.reward_function import RewardCall, RewardInputs
from cloudtune_trainer.tasks.reward import RewardModel

from .conftest import Runs, metrics
from .test_training_policy import LORA, items, spec_of
from .test_training_preferences import pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUTS = RewardInputs(
    rows=[3, 3, 8],
    prompts=[[{"role": "user", "content": "a"}]] * 2 + [[{"role": "user", "content": "b"}]],
    completions=["x", "yy", ""],
    fields=[{"goal": 1}, {"goal": 1}, {"other": "z"}],
    tools=[None, None, None],
)
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
FUNCTIONS = """
import asyncio
import time
from beside import SCALE
import numpy

def lengths(prompts, completions, **columns):
    assert columns == {"goal": [1, 1, None], "other": [None, None, "z"]}, columns
    return [SCALE * len(c[0]["content"]) + len(p[0]["content"]) for p, c in zip(prompts, completions)]

def named(completions, goal, prompts):
    return numpy.asarray([g or 0 for g in goal])

def empty_fails(prompts, completions, **columns):
    return [1 / len(c[0]["content"]) for c in completions]

def only_together_fails(prompts, completions, **columns):
    if len(prompts) > 1:
        raise KeyError("no")
    return [1.0]

def leaves(prompts, completions, **columns):
    raise SystemExit(3)

def cancelled(prompts, completions, **columns):
    raise asyncio.CancelledError("the grader is cancelled")

def own_timeout(prompts, completions, **columns):
    raise TimeoutError("the grader is down")

def hangs(prompts, completions, **columns):
    time.sleep(30)

def few(prompts, completions, **columns):
    return [1.0]

def none_at_all(prompts, completions, **columns):
    return None

def not_a_number(prompts, completions, **columns):
    return [1.0, float("nan"), 2.0]

def text(prompts, completions, **columns):
    return [1.0, 2.0, "3"]

def missing(prompts, completions, **columns):
    return [1.0, 2.0, None]

def wants_more(prompts, completions, unknown_column):
    return [0.0]

CONSTANT = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS, encoding="utf-8")
    (tmp_path / "beside.py").write_text("SCALE = 10\n", encoding="utf-8")
    return path


def test_a_function_gets_lists_as_in_trl(file: Path) -> None:
    assert RewardCall(Reward(function=f"{file}:lengths"))(INPUTS) == [11.0, 21.0, 1.0]
    assert RewardCall(Reward(function=f"{file}:named"))(INPUTS) == [1.0, 1.0, 0.0]
    assert RewardCall(Reward(function=f"{file}:lengths"))(RewardInputs([], [], [], [], [])) == []


def test_compiled_files_beside_a_function_are_not_run(tmp_path: Path) -> None:
    """They can hold another program than the source, which is what the user reads and the plan hashes."""
    sources = {"graded": "from package.inner import SCALE\nfrom below import MORE\n"
                         "def score(completions, **_):\n    return [SCALE + MORE] * len(completions)\n",
               "below": "MORE = 1\n", "package/__init__": "", "package/inner": "SCALE = 2\n"}  # fmt: skip
    for name, source in sources.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        planted = compile("raise SystemExit('planted')", str(path), "exec")
        compiled = Path(importlib.util.cache_from_source(str(path)))
        compiled.parent.mkdir(exist_ok=True)
        unchecked = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
        compiled.write_bytes(unchecked + marshal.dumps(planted))
    fingerprint = hashlib.sha256((tmp_path / "graded.py").read_bytes()).hexdigest()
    call = RewardCall(Reward(function=f"{tmp_path}/graded.py:score", fingerprint=fingerprint))
    assert call(INPUTS) == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(("function", "message"), [
    ("empty_fails", r'raised ZeroDivisionError: .* for row 8, completion ""'),
    ("only_together_fails", "raised KeyError: 'no' for rows 3, 8"),
    ("leaves", "raised RuntimeError: SystemExit: 3 for row 3"),
    ("cancelled", "raised RuntimeError: CancelledError: the grader is cancelled for row 3"),
    ("own_timeout", "raised TimeoutError: the grader is down for row 3"),
    ("hangs", "did not return within 0.2 s for rows 3, 8"),
    ("few", "returned 1 numbers for 3 completions of rows 3, 8"),
    ("none_at_all", "returned NoneType instead of a list of numbers"),
    ("not_a_number", "returned nan for row 3"),
    ("text", "returned '3' for row 8"),
    ("missing", "returned None for row 8"),
    ("wants_more", "raised TypeError: .*unknown_column"),
])  # fmt: skip
def test_every_failure_names_function_row_and_remedy(file: Path, function: str, message: str) -> None:
    # a busy machine may take longer than a short limit for any other case
    call = RewardCall(Reward(function=f"{file}:{function}", timeout=0.2 if function == "hangs" else 60.0))
    with pytest.raises(TrainingProblem, match=message) as caught:
        call(INPUTS)
    assert caught.value.code == "bad_reward"
    assert f"functions.py:{function}" in caught.value.message
    assert caught.value.hint


def test_a_function_that_cannot_be_loaded_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def score(:\n")
    for function, message in {
        f"{file}:nothing": "AttributeError", f"{file}:CONSTANT": "is not a function",
        f"{tmp_path}/broken.py:score": "SyntaxError", f"{tmp_path}/absent.py:score": "FileNotFoundError",
        "surely.not_there:score": "ModuleNotFoundError", "builtins:max": "no signature found",
    }.items():  # fmt: skip
        with pytest.raises(TrainingProblem, match=message) as caught:
            RewardCall(Reward(function=function))
        assert caught.value.code == "bad_reward"
    known = hashlib.sha256(file.read_bytes()).hexdigest()
    RewardCall(Reward(function=f"{file}:lengths", fingerprint=known))
    with pytest.raises(TrainingProblem, match="has changed since the job was submitted"):
        RewardCall(Reward(function=f"{file}:lengths", fingerprint="0" * 64))


class Endpoint(BaseHTTPRequestHandler):
    """Answers as the test says, and keeps what it was sent."""

    replies: list[tuple[int, Any]]
    received: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        status, document = self.replies.pop(0)
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[tuple[str, type[Endpoint]]]:
    handler = type("Handler", (Endpoint,), {"replies": [], "received": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/reward", handler
        server.shutdown()


def test_an_endpoint_gets_the_lists_and_returns_rewards(
    endpoint: tuple[str, type[Endpoint]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = endpoint
    monkeypatch.setattr("time.sleep", lambda _: None)
    handler.replies += [(503, {}), (200, {"rewards": [1, 2.5, 3]})]
    assert RewardCall(Reward(url=url))(INPUTS) == [1.0, 2.5, 3.0]
    assert handler.received[0] == handler.received[1]
    assert handler.received[0]["completions"][1] == [{"role": "assistant", "content": "yy"}]
    assert handler.received[0]["columns"] == {"goal": [1, 1, None], "other": [None, None, "z"]}
    for status, reply, message in (
        (400, {}, "HTTP Error 400"), (302, {}, "HTTP Error 302"), (200, [1, 2, 3], "the reply is not"),
        (200, {"rewards": [1]}, "returned 1 numbers for 3 completions"),
    ):  # fmt: skip
        handler.replies[:] = [(status, reply)] * 9
        with pytest.raises(TrainingProblem, match=message) as caught:
            RewardCall(Reward(url=url))(INPUTS)
        assert caught.value.code == "bad_reward"


def test_an_endpoint_has_the_time_limit_of_the_whole_call() -> None:
    """A server that never stops sending: each of its pieces comes in time."""
    stopped = threading.Event()

    class Trickle(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not stopped.wait(0.02):
                    self.wfile.write(b" ")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        call = RewardCall(Reward(url=f"http://127.0.0.1:{server.server_port}/", timeout=0.3))
        with pytest.raises(TrainingProblem, match=r"did not return within 0.3 s for rows 3, 8") as caught:
            call(INPUTS)
        stopped.set()
        server.shutdown()
    assert "method.reward.timeout" in str(caught.value.hint)


def test_a_failure_of_the_reward_ends_the_run(runs: Runs, file: Path) -> None:
    run = runs.make(rows=items(4), **spec_of(file, LORA, function="few", max_steps=2))
    with pytest.raises(TrainingProblem, match="returned 1 numbers for 8 completions of rows"):
        runs.train(run)


def test_a_reward_model_scores_completions(runs: Runs, file: Path) -> None:
    judge = runs.make(
        "judge", rows=pairs(8), method="reward", adapter=LORA, hyperparameters={"packing": False, "max_steps": 2}
    )
    assert runs.train(judge) == "succeeded"
    scores = RewardModel.open(judge.model).score(
        [[*prompt, {"role": "assistant", "content": text}]
         for prompt, text in zip(INPUTS.prompts, INPUTS.completions, strict=True)]
    )  # fmt: skip
    assert RewardCall(Reward(model=str(judge.model)), "cpu")(INPUTS) == pytest.approx(scores)
    assert len(set(scores)) == 3
    spec = spec_of(file, LORA, method="ppo", max_steps=2)
    spec["policy"]["reward"] = {"model": str(judge.model)}
    run = runs.make("policy", rows=items(4), **spec)
    assert runs.train(run) == "succeeded"
    assert metrics(run)[0]["values"]["reward_std"] > 0
    with pytest.raises(TrainingProblem, match="has changed since the job was submitted"):
        RewardCall(Reward(model=str(judge.model), fingerprint="0"))
    with pytest.raises(TrainingProblem, match="reads 96 tokens, and max_length is 97"):
        RewardCall(Reward(model=str(judge.model)), "cpu", max_length=97)
    template = judge.model / "chat_template.jinja"
    template.write_text(
        "{{ tools | default([], true) | length }}{% for m in messages %}{{ m['role'] + m['content'] }}"
        "{% if m['content'] == 'yy' %}{{ raise_exception('no') }}{% endif %}{% endfor %}", encoding="utf-8"
    )  # fmt: skip
    call = RewardCall(Reward(model=str(judge.model)), "cpu")
    with pytest.raises(TrainingProblem, match=r'cannot score row 3, completion "yy": the chat template') as caught:
        call(INPUTS)
    assert caught.value.code == "bad_reward"
    fine = dataclasses.replace(INPUTS, completions=["x", "x", "x"], tools=[None, [TOOL], None])
    bare, equipped, _ = call(fine)
    assert bare != equipped, "the template renders the tools"
