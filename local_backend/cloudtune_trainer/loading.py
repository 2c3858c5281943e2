"""Loads everything for the training loop from a spec: records, base model, tokenizer, samples, adapter, checkpoint."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer import checkpoints, models
from cloudtune_trainer.adapters import ADAPTERS, is_whole_model
from cloudtune_trainer.causality import check_causal
from cloudtune_trainer.fingerprint import base_fingerprint, check_fingerprint
from cloudtune_trainer.generation_settings import end_where_answers_end
from cloudtune_trainer.packing import enable_packed_attention
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.processors import load_processor, reads_of
from cloudtune_trainer.records import read_records
from cloudtune_trainer.tasks.table import task_for
from cloudtune_trainer.tuned import ADAPTER_CONFIG, read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudtune_trainer.checkpoints import Saved
    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.folder import RunFolder
    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.reporting import Report
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.samples import Samples
    from cloudtune_trainer.tasks.task import Task

_SHOWN = 20
"""Row numbers listed in a warning."""


class Cancelled(Exception):
    """The run was stopped before its first step."""


@dataclass
class Loaded:
    """The loaded objects; ``start`` is the checkpoint from which to resume."""

    spec: RunSpec
    """The spec, adjusted to this model."""
    devices: Devices
    base: BaseModel
    fingerprint: str | None
    """Fingerprint of the base model at loading. None for a model of the hub, which has a revision."""
    tokenizer: Any
    """For a model that reads no text, its processor."""
    model: Any
    """The trained model: the base model, or the peft model around it."""
    task: Task
    splits: dict[str, Samples]
    packing: bool
    start: Saved | None

    @property
    def adapted(self) -> bool:
        """Whether an adapter is trained instead of the base model's own weights."""
        return not is_whole_model(self.spec.adapter.type)


def load(run: RunFolder, spec: RunSpec, report: Report, devices: Devices, stopping: Callable[[], bool]) -> Loaded:
    """Load everything, and report the progress."""
    start = _starting_point(run, spec, report, is_first=devices.rank == 0)
    task = task_for(spec)
    with ThreadPoolExecutor(1, "records") as reader:
        records = {name: reader.submit(read_records, path) for name, path in _data(run, spec).items()}
        base, fingerprint = _located(run, spec, records["train"].result)
        reads = reads_of(spec.method)
        tokenizer = load_processor(base, reads)
        _stop_if(stopping)
        if reads == "text" and "strftime_now" in str(tokenizer.chat_template):
            report.warning("the chat template writes the current date: rows have other tokens on another day")
        report.state("loading", "weights")
        full = is_whole_model(spec.adapter.type)
        # a method that first evaluates the base model loads the checkpoint's weights after that
        at_once = start is not None and full and not task.needs_reference
        network = task.load_model(
            base,
            tokenizer,
            records["train"].result,
            dtype=devices.weight_type(frozen=not full),
            weights=start.weights if start is not None and at_once and not start.is_sharded else None,
            dropout=spec.hyperparameters.dropout,
        )
        rows = {name: future.result() for name, future in records.items()}
    _stop_if(stopping)
    _check_labels(start, task)
    if reads == "text":
        end_where_answers_end(network, tokenizer)
    network.to(devices.device)
    if task.peft_task_type == "CAUSAL_LM":
        check_causal(network)
    _report_notes(task, report, is_new=start is None)
    task.spec = spec = _fitted(spec, network, report)
    whole = None if start is not None and start.is_sharded else start
    model = models.make_trainable(network, spec, base, whole, task.peft_task_type, report)
    _choose_packing(task, network, report)
    report.state("loading", "tokens")
    splits = {}
    for name, part in rows.items():
        splits[name] = _encoded(name, task, part, tokenizer, report)
        if reads == "text":
            _check_vocabulary(name, splits[name], network)
    _stop_if(stopping)
    if task.needs_reference:
        splits = _measured(model, task, splits, spec, report, devices, stopping)
        if start is not None:
            models.restore_weights(start.weights, model, adapted=False)
    return Loaded(
        spec=spec,
        devices=devices,
        base=base,
        fingerprint=fingerprint,
        tokenizer=tokenizer,
        model=model,
        task=task,
        splits=splits,
        packing=spec.hyperparameters.packing and task.packed,
        start=start,
    )


def _report_notes(task: Task, report: Report, *, is_new: bool) -> None:
    if is_new and task.random_weights:
        report.event("message", f"these weights start from random values: {', '.join(task.random_weights)}")
    for note in getattr(task, "notes", ()):
        report.event("message", note)


def _choose_packing(task: Task, network: Any, report: Report) -> None:
    """Pack batches if the task, the adapter and the model allow it. Warns if the spec wants packing in vain."""
    if not task.can_pack or not ADAPTERS[task.spec.adapter.type].can_pack:
        return
    reason = enable_packed_attention(network, task.spec.hyperparameters.max_length)
    task.packed = reason is None
    if task.spec.hyperparameters.packing and reason is not None:
        report.warning(f"packing is disabled: {reason}")


def _data(run: RunFolder, spec: RunSpec) -> dict[str, Path]:
    files = {"train": spec.data.train, "validation": spec.data.validation, "test": spec.data.test}
    return {name: run.path / file for name, file in files.items() if file is not None}


def _starting_point(run: RunFolder, spec: RunSpec, report: Report, *, is_first: bool) -> Saved | None:
    """The newest valid checkpoint of this run, else the one in the spec."""
    saved = checkpoints.newest_good(run.checkpoints)
    for name in checkpoints.damaged_after(run.checkpoints, saved):
        report.warning(f"{name} is incomplete or damaged, and is skipped", checkpoint=name)
    if is_first:
        checkpoints.continue_from(run.checkpoints, saved)
    if saved is None and spec.resume_from is not None:
        saved = checkpoints.read(Path(spec.resume_from))
        if saved is None or not checkpoints.whole(saved):
            raise TrainingProblem(
                "bad_checkpoint",
                f"{spec.resume_from} is not a complete checkpoint",
                "Resume from another checkpoint, or start a new job.",
            )
    if saved is not None and _adapter_of(saved) != ADAPTERS[spec.adapter.type].peft_type:
        raise TrainingProblem(
            "bad_checkpoint",
            f"{saved.path} was not created with the adapter {spec.adapter.type}",
            "Resume with the adapter type of the checkpoint.",
        )
    if saved is not None:
        report.event("message", f"resuming from step {saved.step}", step=saved.step, checkpoint=str(saved.path))
    return saved


def _located(run: RunFolder, spec: RunSpec, records: Callable[[], Iterable[Record]]) -> tuple[BaseModel, str | None]:
    """The base model and its fingerprint. Raises `TrainingProblem` if it is not the submitted one."""
    base = models.locate(
        spec.model,
        scratch=run.path / "base",
        records=records,
        seed=spec.seed,
        trust_remote_code=spec.trust_remote_code,
    )
    if spec.model.source == "hub":
        return base, None
    place = Path(spec.model.path if spec.model.source == "gguf" else base.path)
    submitted = spec.model.fingerprint if spec.model.source != "config" else None
    check_fingerprint(place, submitted, since="the job was submitted")
    return base, submitted or base_fingerprint(place)


def _check_labels(start: Saved | None, task: Task) -> None:
    if start is not None and start.progress.labels != list(task.labels):
        what = f"{start.path} was made with the labels {', '.join(start.progress.labels) or 'of no classes'}"
        raise TrainingProblem("bad_checkpoint", what, "Resume with rows that have the same labels.")


def _adapter_of(saved: Saved) -> str:
    """peft's type of the checkpoint's adapter; empty for a whole model."""
    if saved.is_sharded:
        return str(read_object(saved.weights / checkpoints.KIND).get("peft_type"))
    if saved.weights.name == checkpoints.MODEL:
        return ""
    return str(read_object(saved.weights / ADAPTER_CONFIG).get("peft_type"))


def _positions(network: Any) -> int | None:
    """The number of the model's positions, if it is limited. RoBERTa's begin after that of the padding token."""
    limit = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int):
        return None
    table = next((part for name, part in network.named_modules() if name.endswith(".position_embeddings")), None)
    reserved = getattr(table, "padding_idx", None)
    return limit if reserved is None else limit - reserved - 1


def _fitted(spec: RunSpec, network: Any, report: Report) -> RunSpec:
    """The spec with sequences limited to the model's number of positions, virtual tokens included."""
    limit = _positions(network)
    max_length = spec.hyperparameters.max_length
    if isinstance(limit, int) and "virtual_tokens" in ADAPTERS[spec.adapter.type].settings:
        limit -= spec.adapter.virtual_tokens
        if limit < 2:
            what = f"adapter.virtual_tokens leaves {limit} of the model's positions to the rows"
            raise TrainingProblem("bad_spec", what, "Use fewer virtual tokens.")
    if not isinstance(limit, int) or not 1 < limit < max_length:
        return spec
    report.warning(f"max_length is {limit}, not {max_length}: the model's context is {limit} tokens", max_length=limit)
    return replace(spec, hyperparameters=replace(spec.hyperparameters, max_length=limit))


def _encoded(name: str, task: Task, rows: Iterable[Record], tokenizer: Any, report: Report) -> Samples:
    try:
        samples = task.encode(rows, tokenizer)
    except TrainingProblem as problem:
        raise TrainingProblem(problem.code, f"{name}: {problem.message}", problem.hint) from problem
    cuts = samples.cuts
    for what, numbers in {
        "truncated at max_length": cuts.truncated,
        "dropped: max_length ends before their first trained token": cuts.dropped,
        "dropped: they have no trained tokens": cuts.unlearnt,
    }.items():
        if numbers:
            report.warning(
                f"{name}: {len(numbers)} rows {what}: {_listed(numbers)}",
                split=name, rows=numbers[:1000], count=len(numbers), lost_tokens=cuts.lost_tokens,
            )  # fmt: skip
    for kind, numbers in cuts.unshown.items():
        report.warning(
            f"{name}: {kind}, such as {cuts.unshown_texts[kind]}: {len(numbers)} rows: {_listed(numbers)}",
            split=name, rows=numbers[:1000], count=len(numbers),
        )  # fmt: skip
    if cuts.split:
        report.event("message", f"{name}: {cuts.split} long texts are split into several sequences", split=name)
    return samples


def _listed(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:_SHOWN])) + (" ..." if len(rows) > _SHOWN else "")


def _measured(
    model: Any, task: Any, splits: dict[str, Any], spec: RunSpec, report: Report, devices: Devices,
    stopping: Callable[[], bool],
) -> dict[str, Any]:  # fmt: skip
    """The splits with the base model's log-probabilities."""
    from cloudtune_trainer.reference import with_reference

    report.state("loading", "reference")
    return {
        name: with_reference(
            model,
            task,
            pairs,
            devices,
            token_budget=spec.hyperparameters.token_budget,
            check=lambda: _stop_together(devices, stopping),
        )
        for name, pairs in splits.items()
    }


def _check_vocabulary(name: str, samples: Samples, network: Any) -> None:
    size = network.get_input_embeddings().weight.shape[0]
    highest = int(samples.ids.max())
    if highest >= size:
        raise TrainingProblem(
            "model_not_found",
            f"{name}: the tokenizer produces token {highest}, but the model's vocabulary has {size}",
            "The tokenizer does not match the weights; download the model again.",
        )


def _stop_together(devices: Devices, stopping: Callable[[], bool]) -> None:
    if devices.agree("cancelled" if stopping() else None):
        raise Cancelled


def _stop_if(stopping: Callable[[], bool]) -> None:
    if stopping():
        raise Cancelled
