"""Really trained jobs on the hub's models. The local back end trains them in place of AWS's scripts and recipes.

A job's rows are converted to canonical rows, and its hyperparameters to a spec. ``base_models`` lists the local models
used in place of the hub's. ``GET /_emulator/runs`` returns the spec of each job.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.sagemaker import rows
from cloudtune_emulator.sagemaker.job_timeline import Phase, Seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.job_timeline import JobStatus
    from cloudtune_emulator.train_engine import TrainEngine

API = "sagemaker"
_CACHE = "s3://jumpstart-cache-prod-"
_HYPER = {"learning_rate": ("learning_rate",), "max_length": ("max_input_length", "dataset_max_len"),
          "warmup_ratio": ("lr_warmup_steps_ratio", "warmup_ratio"), "weight_decay": ("weight_decay",),
          "max_grad_norm": ("gradient_clipping_threshold",)}  # fmt: skip
_LORA = {"rank": ("lora_rank", "lora_r"), "alpha": ("lora_alpha",), "dropout": ("lora_dropout",)}
_SCHEDULERS = ("cosine", "constant")
_LONGEST = 1024
"""Limit of tokens per row: recipes name the context of AWS's models, and local models may have less."""
_WORDS = {"validating_files": "Downloading", "queued": "Downloading", "running": "Training", "paused": "Training",
          "pausing": "Training", "succeeded": "Completed", "failed": "Failed", "cancelled": "Stopped"}  # fmt: skip


def is_hubs(job: Mapping[str, Any]) -> bool:
    """Whether AWS's own program would train the job."""
    request = job["request"]
    source = str((request.get("HyperParameters") or {}).get("sagemaker_submit_directory", "")).strip('"')
    return bool(request.get("ServerlessJobConfig")) or source.startswith(_CACHE)


def begin(context: EmulatorContext, job: dict[str, Any]) -> None:
    """Pass the rows and hyperparameters to the train engine."""
    shadow = _shadow(context, job)
    training, validation = _rows(context, job, "train"), _rows(context, job, "validation")
    if training is None:
        error = "ClientError: the job has no training channel, and AWS's default rows are not here"
        shadow["course"]["error"] = {"code": "client_error", "message": error, "param": None}
    context.engine.begin(shadow, training or Path("none"), validation)
    context.store.add("job", API, shadow)


def _shadow(context: EmulatorContext, job: dict[str, Any]) -> dict[str, Any]:
    given = {key: value.strip('"') for key, value in (job["request"].get("HyperParameters") or {}).items()}
    course = job["course"]
    found = {name: _number(given, keys) for name, keys in _HYPER.items()}
    local: dict[str, Any] = {name: number for name, number in found.items() if number is not None}
    if given.get("lr_scheduler") in _SCHEDULERS:
        local["scheduler"] = given["lr_scheduler"]
    lora = {name: number for name, keys in _LORA.items() if (number := _number(given, keys)) is not None}
    if "max_length" in local:
        local["max_length"] = min(int(local["max_length"]), _LONGEST)
    batch = _number(given, ("per_device_train_batch_size", "global_batch_size")) or 4
    seed = _number(given, ("seed",))
    beta = given.get("adam_beta", "auto")  # of DPO, despite its name
    technique = (job["request"].get("ServerlessJobConfig") or {}).get("CustomizationTechnique", "SFT")
    is_text = "ServerlessJobConfig" not in job["request"] and "True" not in (
        given.get("chat_dataset"), given.get("instruction_tuned"),
    )  # fmt: skip
    return {
        "id": job["id"], "api": API, "created": job["created"], "acts": [], "settled": True,
        "base": _base(job), "request": {"model": _base(job)}, "fine_tuned_model": job["arn"], "local": local,
        "lora": lora,
        "method": "text" if is_text else {"DPO": "dpo", "SFT": "supervised"}.get(technique, "reinforcement"),
        "hyperparameters": {"beta": float(beta) if beta != "auto" else "auto"},
        "seed": int(seed) if seed is not None else job["seed"],
        "course": {
            "steps": max(1, math.ceil(course["rows"] / batch)) * math.ceil(course["epochs"]),
            "epochs": max(1, math.ceil(course["epochs"])), "batch_size": int(batch), "learning_rate_multiplier": 1.0,
            "tokens": 0, "has_validation": course["has_validation"], "error": None,
        },
    }  # fmt: skip


def _base(job: Mapping[str, Any]) -> str:
    config = job["request"].get("ServerlessJobConfig")
    if config:
        return str(config["BaseModelArn"]).partition("/Model/")[2].partition("/")[0]
    for channel in job["request"].get("InputDataConfig") or ():
        if channel["ChannelName"] == "model" and (uri := rows.source(channel)):
            return uri.removeprefix("s3://").partition("/")[2].partition("/")[0]
    return "unknown"


def _number(given: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    for name in names:
        try:
            value = float(given[name])
        except (KeyError, ValueError):
            continue
        if value >= 0:  # in JumpStart, -1 means the model's own value
            return value
    return None


def _rows(context: EmulatorContext, job: dict[str, Any], side: str) -> Path | None:
    """Write a channel's rows as canonical rows into a file in the store."""
    uri = rows.channels(job).get(side)
    if uri is None:
        return None
    path = context.store.content(f"sagemaker-{job['id']}-{int(job['created'] * 1000)}-{side}.jsonl")
    template = rows.template(context, uri)
    with path.open("w", encoding="utf-8") as file:
        for row in rows.objects(context, uri):
            file.write(json.dumps(rows.canonical(row, template), ensure_ascii=False) + "\n")
    return path


# -- reading -----------------------------------------------------------------------------------------------------------


def _mine(context: EmulatorContext, job: dict[str, Any]) -> dict[str, Any]:
    shadow = context.store.get("job", API, job["id"])
    assert shadow is not None
    return shadow


def seen(context: EmulatorContext, job: dict[str, Any], now: float) -> Seen:
    """The job's state, from its run."""
    status = context.engine.status(_mine(context, job), now)
    phases = [Phase(job["created"], "InProgress", "Starting"), Phase(job["created"], "InProgress", "Downloading")]
    if status.started_at is not None:
        phases.append(Phase(max(status.started_at, job["created"]), "InProgress", "Training"))
    word = _WORDS[status.word]
    stopped = next((at for at, kind in job["acts"] if kind == "stop"), None)
    if status.finished_at is not None:
        phases += _ending(status, word)
    elif stopped is not None:
        phases.append(Phase(stopped, "Stopping", "Stopping"))
    reason = None
    if word == "Failed" and status.error:
        text = str(status.error["message"])
        reason = text if text.startswith("ClientError") else f"AlgorithmError: {text}"
    lines = tuple((event.at, _line(event.data)) for event in status.events if event.type == "metrics")
    return Seen(phases=tuple(phases), reason=reason, step=_step(status), lines=lines)


def _ending(status: JobStatus, word: str) -> list[Phase]:
    assert status.finished_at is not None
    if word == "Completed":
        return [
            Phase(status.finished_at, "InProgress", "Uploading"),
            Phase(status.finished_at, "Completed", "Completed"),
        ]
    return [Phase(status.finished_at, word, word)]


def _step(status: JobStatus) -> int:
    return max((int(event.data.get("step", 0)) for event in status.events if event.type == "metrics"), default=0)


def _line(data: Mapping[str, Any]) -> str:
    """A log line in the format of Hugging Face's Trainer."""
    names = {"train_loss": "loss", "full_valid_loss": "eval_loss"}
    return str({column: data[name] for name, column in names.items() if name in data})


def stop(context: EmulatorContext, job: dict[str, Any], now: float) -> None:
    """Stop the run."""
    shadow = _mine(context, job)
    context.engine.act(shadow, "cancel", now)
    context.store.save("job", API, shadow)


def artefact(context: EmulatorContext, job: dict[str, Any]) -> bytes | None:
    """The archive of the tuned model's files; None if the run has no model."""
    engine: TrainEngine = context.engine  # type: ignore[assignment]
    folder = engine.files(_mine(context, job))
    if folder is None:
        return None
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return buffer.getvalue()
