"""Distillation for the train engine: the teacher's local model answers the rows that have no answer.

The student is then trained on all rows, as in the service: the teacher's answers, and those given with the prompts
(https://docs.aws.amazon.com/bedrock/latest/userguide/distillation-prepare-datasets.html, seen 2026-11-21). Further
answers that the service generates by its own data synthesis are not emulated.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import ConfigError
from cloudtune.optional import GenerateOptions
from cloudtune_emulator import train_status
from cloudtune_emulator.engines import Served

if TYPE_CHECKING:
    from cloudtune.state import TunedModel
    from cloudtune_emulator.base_models import Stands
    from cloudtune_local.backend import LocalBackend

_MOST_TOKENS = 256
"""Longest answer, unless the job sets it: the service's own default is not documented."""


def teach(job: dict[str, Any], rows: Path, stands: Stands, backend: LocalBackend, scratch: Path) -> None:
    """Write the teacher's answers into the rows without an answer. Raises ConfigError."""
    chats = [msgspec.json.decode(line) for line in rows.read_bytes().splitlines()]
    open_ = [chat for chat in chats if chat["messages"][-1]["role"] != "assistant"]
    if not open_:
        return
    config = job["request"]["customizationConfig"]["distillationConfig"]["teacherModelConfig"]
    name = str(config["teacherModelIdentifier"]).rpartition("/")[2]
    teacher = _model(name, stands, scratch)
    options = GenerateOptions(max_tokens=config.get("maxResponseLengthForInference") or _MOST_TOKENS, temperature=0.0)
    questions = {msgspec.json.encode(chat["messages"]): chat["messages"] for chat in open_}  # unique questions
    prompts = [
        [{"role": str(m["role"]), "content": train_status.words(m)} for m in messages]
        for messages in questions.values()
    ]
    said = dict(zip(questions, backend.generate(teacher, prompts, options), strict=True))
    for chat in open_:
        answer = said[msgspec.json.encode(chat["messages"])].text
        chat["messages"].append({"role": "assistant", "content": answer})
    good = [chat for chat in chats if chat["messages"][-1]["content"].strip()]
    aside = rows.with_suffix(".taught")
    aside.write_bytes(b"".join(msgspec.json.encode(chat) + b"\n" for chat in good))
    os.replace(aside, rows)  # the file may be a link to the job's input, which must not change


def _model(name: str, stands: Stands, scratch: Path) -> TunedModel:
    """The teacher as a model for inference: a folder of links, since ``tuned.json`` is written beside the weights."""
    weights = Path(stands.of(name).model)
    if not weights.is_dir():
        raise ConfigError(
            f"no local weights are configured for the teacher {name}, and rows without an answer require it",
            hint="add a model folder for it to the --models file",
        )
    folder = scratch / "".join(letter if letter.isalnum() else "-" for letter in name)
    folder.mkdir(parents=True, exist_ok=True)
    for file in weights.iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.absolute())
    return train_status.imported(Served(name=name, base=name, folder=folder))
