"""A tuned model behind an endpoint, in AWS's Hugging Face inference image: the functions that it looks for.

The model's archive holds this package under ``code/`` (``opt_ml`` puts it there), so that an endpoint answers with the
very code that answers on a laptop. A body is a conversation, ``{"messages": [...], "max_tokens": 64}``, or TGI's
``{"inputs": "...", "parameters": {"max_new_tokens": 64}}``; ``"base": true`` asks the base model instead, to compare.
Functions: huggingface.co/docs/sagemaker/inference, user-defined code (seen 2026-11-21).
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from cloudtune_local.training.folder import read_json, write_json

BASE_VARIABLE = "CLOUDTUNE_BASE"
"""Where the base model lies in the container, if it is neither in the archive nor on the hub."""
START = '''"""What the inference image looks for."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cloudtune_local.training.serving import model_fn, transform_fn  # noqa: F401
'''


class Server:
    """The tuned model, and its base once that is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._loaded: dict[bool, Any] = {False: self._open(base=False)}

    def _open(self, *, base: bool) -> Any:
        from cloudtune_local.training.generate import Model

        return Model.open(self._folder, base=base)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """One answer, in the form of the question."""
        is_chat = "messages" in body
        given = body if is_chat else body.get("parameters") or {}
        temperature = float(given.get("temperature", 0.0)) if given.get("do_sample", True) else 0.0
        prompt = body["messages"] if is_chat else body["inputs"]
        said = next(
            self._model(base=bool(body.get("base"))).generate(
                [prompt], max_tokens=int(given.get("max_tokens") or given.get("max_new_tokens") or 128),
                temperature=temperature, top_p=float(given.get("top_p") or 1.0), seed=given.get("seed"),
            )
        )  # fmt: skip
        if not is_chat:
            details = {"finish_reason": said.finish_reason, "generated_tokens": said.completion_tokens}
            return {"generated_text": said.text, "details": details}
        message = {"role": "assistant", "content": said.text}
        usage = {"prompt_tokens": said.prompt_tokens, "completion_tokens": said.completion_tokens}
        choice = {"index": 0, "message": message, "finish_reason": said.finish_reason}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}

    def _model(self, *, base: bool) -> Any:
        with self._lock:
            if base not in self._loaded:
                self._loaded[base] = self._open(base=base)
            return self._loaded[base]


def model_fn(model_dir: str, context: Any = None) -> Server:
    """Load the model of that folder. The image calls it once for each of its processes."""
    return Server(_settled(Path(model_dir)))


def transform_fn(model: Server, data: Any, content_type: str, accept: str) -> str:
    """Answer one request. What it raises, the image tells with its status."""
    if "json" not in content_type:
        raise ValueError(f"{content_type} is not understood: send application/json")
    body = json.loads(data)
    if not isinstance(body, dict) or not ("messages" in body or isinstance(body.get("inputs"), str)):
        raise ValueError("the body needs `messages` or `inputs`")
    return json.dumps(model.answer(body))


def _settled(folder: Path) -> Path:
    """The model's folder, whose note says where its base lies here. The one that is given may not be written to."""
    tuned = read_json(folder / "tuned.json")
    base = os.environ.get(BASE_VARIABLE)
    if tuned["base"]["source"] == "hub" or not (base or (folder / "base").is_dir()):
        return folder
    place = base or str(folder / "base")
    aside = Path(tempfile.mkdtemp(prefix="cloudtune-model-"))
    for path in folder.iterdir():
        if path.name not in ("tuned.json", "code"):
            (aside / path.name).symlink_to(path)
    write_json(aside / "tuned.json", {**tuned, "base": {**tuned["base"], "path": place}, "base_folder": place})
    return aside
