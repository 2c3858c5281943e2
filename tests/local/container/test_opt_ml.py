"""What the container's program makes of its surroundings, in this process."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from tests.local.backend import forked

from cloudtune_trainer.folder import RunFolder, append_line
from cloudtune_trainer.generate import Answer
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.sagemaker import entrypoint, serving
from cloudtune_trainer.sagemaker.entrypoint import (
    TOKEN_SECRET_VARIABLE,
    Deadline,
    Tail,
    Tree,
    fail,
    fetch_token,
    read_setup,
)
from cloudtune_trainer.sagemaker.installing import wanted
from cloudtune_trainer.sampling import check_settings
from cloudtune_trainer.submit.bundle import REQUIREMENTS, files

if TYPE_CHECKING:
    from pathlib import Path


def tree_of(root: Path, hyperparameters: dict[str, str], **resources: Any) -> Tree:
    tree = Tree(root)
    tree.config.mkdir(parents=True)
    (tree.config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    if resources:
        (tree.config / "resourceconfig.json").write_text(json.dumps(resources))
    return tree


def test_dotted_names_become_the_trainer_s_spec(tmp_path: Path) -> None:
    given = {
        "adapter.rank": "8", "adapter.targets": '["q_proj"]', "model.source": '"folder"', "model.path": '"model"',
        "data.train": '"train/train.jsonl"', "resume_from": '"start/step-00000003"', "seed": "3",
    }  # fmt: skip
    setup = read_setup(tree_of(tmp_path, given))
    channels = tmp_path / "input" / "data"
    assert setup.spec == {
        "adapter": {"rank": 8, "targets": ["q_proj"]}, "seed": 3,
        "model": {"source": "folder", "path": str(channels / "model")},
        "data": {"train": str(channels / "train" / "train.jsonl")},
        "resume_from": str(channels / "start" / "step-00000003"),
    }  # fmt: skip
    assert (setup.hosts, setup.host, setup.number) == (("algo-1",), "algo-1", 0)


def test_a_hub_s_model_is_no_path(tmp_path: Path) -> None:
    setup = read_setup(tree_of(tmp_path, {"model.source": '"hub"', "model.path": '"org/model"'}))
    assert setup.spec["model"]["path"] == "org/model"


def test_hosts_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    hosts = ["algo-10", "algo-2", "algo-1"]
    setup = read_setup(tree_of(tmp_path, {}, current_host="algo-2", hosts=hosts, network_interface_name="eth0"))
    assert (setup.hosts, setup.number, setup.network) == (("algo-1", "algo-2", "algo-10"), 1, "eth0")


def test_a_reason_is_cut_and_its_hint_kept(tmp_path: Path) -> None:
    fail(Tree(tmp_path), TrainingProblem("bad_data", "no " * 900, "Mend it."))
    text = (tmp_path / "output" / "failure").read_text()
    assert len(text) == 1024
    assert text.startswith("bad_data: no no")
    assert text.endswith("\nMend it.")


def test_a_file_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    append_line(path, {"n": 1})
    with path.open("a") as file:
        file.write('{"n": 2')  # torn: told when it is whole
    assert tail.read() == [{"n": 1}]
    with path.open("a") as file:
        file.write('}\nnonsense\n{"n": 3}\n')
    assert tail.read() == [{"n": 2}, {"n": 3}]
    assert tail.read() == []


def test_the_trainer_is_told_before_the_service_stops_it(tmp_path: Path) -> None:
    hands = [100.0]
    run = RunFolder(tmp_path)
    deadline = Deadline(run, 50.0, clock=lambda: hands[0])
    deadline.look()
    hands[0] = 149.9
    deadline.look()
    assert not run.requested("expire")
    hands[0] = 150.0
    for _ in range(2):
        deadline.look()
        assert run.requested("expire")


TRAINER = """#!/bin/sh
mkdir "$4/model"
cat > "$4/model/tuned.json" <<END
{"adapter": "lora", "method": "sft", "merged": false, "base_folder": "base", "base": {"source": "hub", "path": "a/b"}}
END
echo '{"state": "succeeded", "step": 3}' > "$4/status.json"
"""
"""In the place of the interpreter: a trainer that has succeeded."""


def run_container(root: Path, at: tuple[str, int] | None = None) -> tuple[int, list[tuple[str, int]]]:
    """Run the container's program in a child. Returns its exit code, and the lines that it ran after the trainer's end.

    It receives SIGTERM when it first reaches the line ``at``.
    """
    tree_of(root, {"version": "2"})
    python = root / "python"
    python.write_text(TRAINER)
    python.chmod(0o755)
    lines: list[tuple[str, int]] = []

    def follow(frame: types.FrameType, event: str, _: Any) -> Any:
        here = (frame.f_code.co_name, frame.f_lineno)
        if frame.f_code.co_filename != entrypoint.__file__:
            return None
        if event == "line" and here not in lines:
            lines.append(here)
            if here == at:
                os.kill(os.getpid(), signal.SIGTERM)
        return follow

    class Group(entrypoint.Group):
        def wait(self, *arguments: Any) -> int:
            code = super().wait(*arguments)
            sys.settrace(follow)
            frame: types.FrameType | None = sys._getframe(1)
            while frame is not None:
                frame.f_trace = follow
                frame = frame.f_back
            return code

    def main() -> int:
        os.environ["SAGEMAKER_BASE_DIR"] = str(root)
        sys.executable = str(python)
        entrypoint.Group = Group  # type: ignore[misc]
        code = entrypoint.main()
        sys.settrace(None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "at its exit, Python resets any other handler"
        (root / "lines.json").write_text(json.dumps(lines))
        return code

    status = os.waitpid(forked.fork(main), 0)[1]
    path = root / "lines.json"
    return os.waitstatus_to_exitcode(status), [tuple(x) for x in json.loads(path.read_text())] if path.exists() else []


def test_a_signal_after_the_success_changes_nothing(tmp_path: Path) -> None:
    """At each line that runs after the trainers have ended."""
    code, lines = run_container(tmp_path / "none")
    assert code == 0
    assert {"_train", "_keep", "_deliver"} <= {name for name, _ in lines}
    for number, line in enumerate(lines):
        root = tmp_path / str(number)
        assert run_container(root, line)[0] == 0, line
        assert not (root / "output" / "failure").exists()
        made = {path.relative_to(root / "model") for path in (root / "model").rglob("*")}
        assert made == {
            path.relative_to(tmp_path / "none" / "model") for path in (tmp_path / "none" / "model").rglob("*")
        }


def test_packages_are_installed_for_the_jobs_that_need_them() -> None:
    text = "# a comment\ngguf==1.0  # only for models in GGUF files\n\npeft==2.0\nbitsandbytes==3.0\n"
    lora, qlora = {"adapter": {"type": "lora"}}, {"adapter": {"type": "qlora"}}
    assert wanted(text, {"model": {"source": "folder"}, **lora}) == ["peft==2.0"]
    assert wanted(text, {"model": {"source": "gguf"}, **lora}) == ["gguf==1.0", "peft==2.0"]
    assert wanted(text, {"model": {"source": "folder"}, **qlora}) == ["peft==2.0", "bitsandbytes==3.0"]
    sent = files()[REQUIREMENTS].decode()
    assert set(wanted(sent, qlora)) - set(wanted(sent, lora)) == {"bitsandbytes==0.50.2"}


def test_the_hub_s_token_comes_from_secrets_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto import mock_aws

    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("HF_TOKEN", "")
    with mock_aws():
        boto3.client("secretsmanager").create_secret(Name="hub", SecretString="hf_of_the_vault")
        monkeypatch.setenv(TOKEN_SECRET_VARIABLE, "hub")
        fetch_token()
        import os

        assert os.environ["HF_TOKEN"] == "hf_of_the_vault"
        monkeypatch.setenv(TOKEN_SECRET_VARIABLE, "missing")
        with pytest.raises(TrainingProblem, match="cannot read the secret missing") as reported:
            fetch_token()
    assert reported.value.code == "no_permission"


class Spoken:
    """In the place of a loaded model."""

    def __init__(self, name: str) -> None:
        self.name = name

    def generate(self, prompts: list[Any], **options: Any) -> Any:
        check_settings(**options)  # as the model does
        said = f"{self.name}: {prompts[0]} {sorted(options.items())}"
        return iter([Answer(said, "length", 3, 4)])

    def stream(self, prompt: Any, **options: Any) -> Any:
        check_settings(**options)
        return iter([self.name[:2], self.name[2:], Answer(self.name, "length", 3, 4)])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> serving.Server:
    monkeypatch.setattr(serving.Server, "_open", lambda self, *, base: Spoken("base" if base else "tuned"))
    return serving.Server(tmp_path)


def test_an_endpoint_takes_conversations_and_prompts(served: serving.Server) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    chat = json.loads(serving.transform_fn(served, json.dumps({"messages": messages}), "application/json", "*/*"))
    assert chat["choices"][0]["message"]["content"].startswith("tuned: [{'role': 'user'")
    assert chat["choices"][0]["finish_reason"] == "length"
    assert chat["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}
    body = {"inputs": "Hi", "parameters": {"max_new_tokens": 7, "do_sample": False, "temperature": 0.9}, "base": True}
    document = json.loads(serving.transform_fn(served, json.dumps(body), "application/json; charset=utf-8", "*/*"))
    assert document["generated_text"].startswith("base: Hi [('max_tokens', 7)")
    assert "('temperature', 0.0)" in document["generated_text"]


STREAMED = [
    {"messages": [{"role": "user", "content": "Hi"}], "stream": True},
    {"inputs": "Hi", "parameters": {"max_new_tokens": 7}, "stream": True},
]


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_streamed_answer_is_told_in_events(served: serving.Server) -> None:
    chat, tokens = (
        events(serving.transform_fn(served, json.dumps(body), "application/json", "*/*")) for body in STREAMED
    )
    assert [one["choices"][0]["delta"].get("content") for one in chat[:-1]] == ["tu", "ned", None]
    assert (chat[-2]["choices"][0]["finish_reason"], chat[-2]["usage"]["completion_tokens"]) == ("length", 4)
    assert chat[-1] == "[DONE]"
    assert [one["token"]["text"] for one in tokens] == ["tu", "ned", ""]
    assert [one["generated_text"] for one in tokens] == [None, None, "tuned"]


def test_a_server_that_can_sends_each_part_as_it_comes(served: serving.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchServe's function is called for all parts but the last, which is returned."""
    sent: list[str] = []
    utils = types.ModuleType("ts.handler_utils.utils")
    utils.send_intermediate_predict_response = (  # type: ignore[attr-defined]
        lambda parts, requests, message, code, context: sent.extend(parts)
    )
    for name, module in (("ts", types.ModuleType("ts")), ("ts.handler_utils", types.ModuleType("ts.handler_utils")),
                         ("ts.handler_utils.utils", utils)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    context = types.SimpleNamespace(request_ids={0: "a-request"})
    body = json.dumps(STREAMED[0])
    last = serving.transform_fn(served, body, "application/json", "*/*", context)
    assert len(sent) == 3
    assert "".join(sent) + last == serving.transform_fn(served, body, "application/json", "*/*")


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
BAD_REQUESTS: dict[str, tuple[Any, str]] = {
    "no object": ([], "the body requires `messages`"),
    "no prompt": ({}, "the body requires `messages`"),
    "no list": ({"messages": "Hi"}, "`messages` must be a list"),
    "no message": ({"messages": []}, "`messages` must be a list"),
    "no parameters": ({"inputs": "Hi", "parameters": [1]}, "`parameters` must be an object"),
    "no tokens": (CHAT | {"max_tokens": 0}, "max_tokens must be from 1 to 1,000,000, not 0"),
    "a word for a number": (CHAT | {"max_tokens": "many"}, "max_tokens must be from 1 to 1,000,000, not 'many'"),
    "no probability": (CHAT | {"top_p": 0}, "top_p must be from 1e-06 to 1, not 0"),
    "too hot": (CHAT | {"temperature": 101}, "temperature must be 0 or from 0.001 to 100, not 101"),
    "a negative seed": (CHAT | {"seed": -1}, "seed must be from 0 to 4,294,967,295, not -1"),
    "several": (CHAT | {"seed": -1, "top_p": 2, "stream": True}, "top_p must be from 1e-06 to 1, not 2; seed must be"),
    "a parameter": ({"inputs": "Hi", "parameters": {"max_new_tokens": -1}}, "max_tokens must be from 1"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_is_answered_with_400(served: serving.Server, case: str) -> None:
    """The status is in the context if the image passes one. Hugging Face's image answers what is raised with 400."""
    body, message = BAD_REQUESTS[case]
    statuses: list[tuple[int, str]] = []
    context = types.SimpleNamespace(set_response_status=lambda *status: statuses.append(status))
    answer = json.loads(serving.transform_fn(served, json.dumps(body), "application/json", "*/*", context))
    assert answer["error"].startswith(message)
    assert statuses == [(400, "Bad Request")]
    with pytest.raises(serving.BadRequest) as refused:
        serving.transform_fn(served, json.dumps(body), "application/json", "*/*")
    assert str(refused.value) == answer["error"]


@pytest.mark.parametrize(("body", "kind", "message"), [
    ("{}", "text/csv", "unsupported content type"), ("{", "application/json", "not valid JSON"),
])  # fmt: skip
def test_an_unreadable_body_is_a_bad_request(served: serving.Server, body: str, kind: str, message: str) -> None:
    with pytest.raises(serving.BadRequest, match=message):
        serving.transform_fn(served, body, kind, "*/*")


def test_a_fault_of_the_server_is_no_bad_request(served: serving.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise TrainingProblem("out_of_memory", "out of memory")

    monkeypatch.setattr(Spoken, "generate", fail)
    with pytest.raises(TrainingProblem, match="out of memory"):
        serving.transform_fn(served, json.dumps(CHAT), "application/json", "*/*", types.SimpleNamespace())


def test_an_endpoint_finds_the_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the archive, or where it was mounted; the folder of the model itself may not be writable."""
    (tmp_path / "base").mkdir()
    (tmp_path / "adapter_model.safetensors").write_text("weights")
    rest = {"adapter": "lora", "method": "sft", "merged": False, "base_folder": "base"}
    note = rest | {"base": {"source": "config", "path": "tiny.json"}}
    (tmp_path / "tuned.json").write_text(json.dumps(note))
    place = serving._settled(tmp_path)
    assert json.loads((place / "tuned.json").read_text())["base_folder"] == str(tmp_path / "base")
    assert (place / "adapter_model.safetensors").read_text() == "weights"
    monkeypatch.setenv(serving.BASE_VARIABLE, "/opt/ml/additional-model-data-sources/base")
    mounted = json.loads((serving._settled(tmp_path) / "tuned.json").read_text())
    assert mounted["base"]["path"] == mounted["base_folder"] == "/opt/ml/additional-model-data-sources/base"
    (tmp_path / "tuned.json").write_text(json.dumps(rest | {"base": {"source": "hub", "path": "org/model"}}))
    assert serving._settled(tmp_path) == tmp_path


def test_this_room_loads_nothing_heavy() -> None:
    import subprocess

    command = (
        "import sys, cloudtune_trainer.sagemaker.entrypoint; print([m for m in sys.modules if m in ('torch', 'boto3')])"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
