"""Inference with a tuned model on an endpoint, in AWS's Hugging Face inference image: the functions that it calls.

The model's archive contains this package under ``code/`` (`entrypoint` puts it there), so that an endpoint runs the
same code as a laptop. A body is a conversation, ``{"messages": [...], "max_tokens": 64}``, or TGI's
``{"inputs": "...", "parameters": {"max_new_tokens": 64}}``; ``"base": true`` uses the base model instead, to compare;
``"stream": true`` returns server-sent events, OpenAI's chunks or TGI's tokens, with the finish reason in the last.
Functions: huggingface.co/docs/sagemaker/inference, user-defined code (seen 2026-11-21).
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import write_json
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tuned import TUNED, read_tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BASE_VARIABLE = "CLOUDTUNE_BASE"
"""The path of the base model in the container, if it is neither in the archive nor on the hub."""
TRUST_VARIABLE = "CLOUDTUNE_TRUST_REMOTE_CODE"
"""If 1, the model's own code can run. Only the deployment can set this; the archive cannot."""
START = '''"""What the inference image looks for."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cloudtune_trainer.sagemaker.serving import model_fn, transform_fn  # noqa: F401
'''


class BadRequest(ValueError):
    """The request is wrong: the response is a 400 with this message."""


class Server:
    """The tuned model, and its base model, loaded at the first use."""

    def __init__(self, folder: Path, *, trust_remote_code: bool = False) -> None:
        self._folder = folder
        self._trust_remote_code = trust_remote_code
        self._lock = threading.Lock()
        self._loaded: dict[bool, Any] = {False: self._open(base=False)}

    def _open(self, *, base: bool) -> Any:
        from cloudtune_trainer.generate import Model

        return Model.open(self._folder, base=base, trust_remote_code=self._trust_remote_code)

    def parts(self, body: dict[str, Any]) -> Iterator[bytes]:
        """The answer in the format of the request: whole, or with ``"stream": true`` in events during generation."""
        return _parts(self._model(base=bool(body.get("base"))), body)

    def _model(self, *, base: bool) -> Any:
        with self._lock:
            if base not in self._loaded:
                self._loaded[base] = self._open(base=base)
            return self._loaded[base]


class SharedServer:
    """A base model with the adapters of several jobs. A request names an adapter, or none for the base model."""

    def __init__(self, folder: Path) -> None:
        from cloudtune_trainer.multi_adapter import MultiAdapterModel

        self._base = MultiAdapterModel(folder)

    def add(self, name: str, folder: Path) -> None:
        """Load an adapter, unless one of that name is loaded."""
        self._base.add(name, folder)

    def keep(self, names: Iterable[str]) -> None:
        """Unload all other adapters."""
        for name in self._base.names - set(names):
            self._base.remove(name)

    def parts(self, body: dict[str, Any], adapter: str | None) -> Iterator[bytes]:
        """As `Server.parts`."""
        return _parts(self._base.model(None if body.get("base") else adapter), body)


def model_fn(model_dir: str, context: Any = None) -> Server:
    """Load the model of that folder. The image calls this once in each of its processes."""
    return Server(_settled(Path(model_dir)), trust_remote_code=os.environ.get(TRUST_VARIABLE) == "1")


def transform_fn(model: Server, data: Any, content_type: str, accept: str, context: Any = None) -> str:
    """Answer one request: 400 with a message if the request is wrong.

    TorchServe's images send each part at once; those of Hugging Face send all of them at the end. Hugging Face's
    handler calls this without a context, and answers any exception with a 400 and its message. Others pass the
    context, and answer an exception with a 500 (aws/sagemaker-inference-toolkit, transformer.py, seen 2026-11-29).
    """
    try:
        return _answer(model, read_body(data, content_type), context)
    except BadRequest as error:
        if context is None:
            raise
        context.set_response_status(400, "Bad Request")
        return json.dumps({"error": str(error)})


def _answer(model: Server, body: dict[str, Any], context: Any) -> str:
    parts = model.parts(body)
    send = _sender(context) if body.get("stream") else None
    if send is None:
        return b"".join(parts).decode()
    last = next(parts, b"")
    for part in parts:
        send(last.decode())
        last = part
    return last.decode()


def read_body(data: Any, content_type: str) -> dict[str, Any]:
    """A request's body. Raises BadRequest for anything else."""
    if "json" not in content_type:
        raise BadRequest(f"unsupported content type {content_type}: send application/json")
    try:
        body = json.loads(data)
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict) or not ("messages" in body or isinstance(body.get("inputs"), str)):
        raise BadRequest("the body requires `messages`, a list of messages, or `inputs`, a text")
    messages = body.get("messages", [{}])
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("`messages` must be a list of messages, with at least one")
    return body


def _sender(context: Any) -> Callable[[str], None] | None:
    """The function that sends a part before the end, if the server has one (TorchServe)."""
    requests = getattr(context, "request_ids", None)
    if not requests:
        return None
    try:
        from ts.handler_utils.utils import (  # type: ignore[import-not-found,unused-ignore]
            send_intermediate_predict_response,
        )
    except ImportError:
        return None
    return lambda part: send_intermediate_predict_response([part], requests, "a part of the answer", 200, context)


def _parts(model: Any, body: dict[str, Any]) -> Iterator[bytes]:
    is_chat = "messages" in body
    prompt = body["messages"] if is_chat else body["inputs"]
    settings = _settings(body if is_chat else body.get("parameters") or {})
    try:
        if not body.get("stream"):
            said = next(model.generate([prompt], **settings))
            yield json.dumps(_chat(said) if is_chat else _told(said)).encode()
            return
        for part in model.stream(prompt, **settings):
            event = _chat_event(part) if is_chat else _token_event(part)
            yield f"data: {json.dumps(event)}\n\n".encode()
        if is_chat:
            yield b"data: [DONE]\n\n"
    except TrainingProblem as error:
        if error.code != "bad_data":
            raise
        raise BadRequest(f"{error.message}. {error.hint}" if error.hint else error.message) from error


def _settings(given: Any) -> dict[str, Any]:
    """The settings of the answer, from a conversation's body or TGI's parameters. The model checks their values."""
    if not isinstance(given, dict):
        raise BadRequest("`parameters` must be an object")
    named = {name: value for name, value in given.items() if value is not None}
    return {
        "max_tokens": named.get("max_tokens", named.get("max_new_tokens", 128)),
        "temperature": named.get("temperature", 0.0) if named.get("do_sample", True) else 0.0,
        "top_p": named.get("top_p", 1.0),
        "seed": named.get("seed"),
    }


def _told(said: Any) -> dict[str, Any]:
    details = {"finish_reason": said.finish_reason, "generated_tokens": said.completion_tokens}
    return {"generated_text": said.text, "details": details}


def _usage(said: Any) -> dict[str, int]:
    return {"prompt_tokens": said.prompt_tokens, "completion_tokens": said.completion_tokens}


def _chat(said: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": said.text}, "finish_reason": said.finish_reason}
    return {"object": "chat.completion", "choices": [choice], "usage": _usage(said)}


def _chat_event(part: Any) -> dict[str, Any]:
    """An event for a chunk of text, or for the whole answer with its finish reason and token count."""
    if isinstance(part, str):
        choice = {"index": 0, "delta": {"role": "assistant", "content": part}, "finish_reason": None}
        return {"object": "chat.completion.chunk", "choices": [choice]}
    choice = {"index": 0, "delta": {}, "finish_reason": part.finish_reason}
    return {"object": "chat.completion.chunk", "choices": [choice], "usage": _usage(part)}


def _token_event(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"token": {"text": part}, "generated_text": None}
    return {"token": {"text": "", "special": True}, **_told(part)}


def _settled(folder: Path) -> Path:
    """A model folder whose ``tuned.json`` has the base's path in the container. The original may be read-only."""
    tuned = read_tuned(folder)
    base = os.environ.get(BASE_VARIABLE)
    if tuned["base"]["source"] == "hub" or not (base or (folder / "base").is_dir()):
        return folder
    place = base or str(folder / "base")
    aside = Path(tempfile.mkdtemp(prefix="cloudtune-model-"))
    for path in folder.iterdir():
        if path.name not in (TUNED, "code"):
            (aside / path.name).symlink_to(path)
    write_json(aside / TUNED, {**tuned, "base": {**tuned["base"], "path": place}, "base_folder": place})
    return aside
