"""The ``train`` engine: each job is a job of the local back end, and its tuned model generates the answers.

Creating a job returns at once; a thread reads the data and starts the run. The store holds a reference to the job's
run, so that a server that is restarted on the same folder continues.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloudtune.client import Client
from cloudtune.errors import CloudtuneError, ConfigError, JobNotFound
from cloudtune.job import Job
from cloudtune.optional import GenerateOptions
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef
from cloudtune_emulator import base_models, distillation, train_status
from cloudtune_emulator.engines import Spoken
from cloudtune_emulator.http import ApiError
from cloudtune_emulator.job_timeline import Actions, JobStatus, Script, TrainingPlan, status_at
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune.backend import Backend
    from cloudtune_emulator.engines import Sampling, Served
    from cloudtune_emulator.store import Store

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 20.0
"""Time for runs to stop before their folder is deleted."""
_METHODS = {"supervised": "sft", "dpo": "dpo", "reinforcement": "rft", "text": "cpt", "distillation": "sft"}


class TrainEngine:
    """See the module and `Engine`. ``folder`` holds the runs, the ledger and copies of the training data."""

    def __init__(self, store: Store, models: Path | None = None) -> None:
        self._store = store
        self._folder = store.folder / "training"
        self._inputs = self._folder / "inputs"
        self._inputs.mkdir(parents=True, exist_ok=True)
        self._stands = base_models.read(models, self._folder)
        self._backend = LocalBackend(Options(root=self._folder / "runs"))
        self._client = Client(cast("Backend", self._backend), ledger=f"sqlite:///{self._folder / 'ledger.sqlite'}")
        self._starting = ThreadPoolExecutor(1, thread_name_prefix="cloudtune-emulator-start")
        self._ended: dict[str, JobStatus] = {}
        for job in store.all("job"):  # jobs whose server stopped before they were started
            if job["course"]["error"] is None and store.get("run", job["api"], job["id"]) is None:
                self._starting.submit(self._start, job)

    def begin(self, job: dict[str, Any], training: Path, validation: Path | None) -> None:
        """See `Engine.begin`: copies the training data, as the files may be deleted."""
        if job["course"]["error"] is not None:
            return
        for name, path in (("train", training), ("validation", validation)):
            if path is not None:
                os.link(path, self._input(job, name))
        job["has_validation"] = validation is not None
        self._starting.submit(self._start, job)

    def _input(self, job: dict[str, Any], name: str) -> Path:
        return self._inputs / f"{job['id']}-{name}.jsonl"

    def _start(self, job: dict[str, Any]) -> None:
        try:
            if job["method"] == "distillation":
                rows, scratch = self._input(job, "train"), self._folder / "teachers"
                distillation.teach(job, rows, self._stands, self._backend, scratch)
            spec = self._spec(job)
            ref = self._client.submit(spec).ref
            run = {"ref": str(ref), "spec": spec.model_dump(mode="json", exclude_none=True), "error": None}
        except CloudtuneError as error:
            run = {"ref": None, "spec": None, "error": str(error)}
        except Exception as error:  # noqa: BLE001 - the job must end, whatever the error
            _LOG.exception("job %s could not be started", job["id"])
            run = {"ref": None, "spec": None, "error": f"{type(error).__name__}: {error}"}
        self._store.add("run", job["api"], {"id": job["id"], "at": time.time(), **run})

    def _spec(self, job: dict[str, Any]) -> JobSpec:
        """The local spec of the vendor's request; ``GET /_emulator/runs`` returns it."""
        stand = self._stands.of(job["base"])
        course = job["course"]
        data: dict[str, Any] = {"train": {"path": str(self._input(job, "train")), "format": "jsonl"}}
        if job["has_validation"]:
            data["validation"] = {"path": str(self._input(job, "validation")), "format": "jsonl"}
        hyperparameters = stand.hyperparameters | {
            "epochs": course["epochs"], "batch_size": course["batch_size"],
            "learning_rate": stand.learning_rate * course["learning_rate_multiplier"],
        } | job.get("local", {})  # fmt: skip
        if "warmup_steps" in hyperparameters:  # overrides the local model's ratio
            hyperparameters.pop("warmup_ratio", None)
        document = {
            "name": job["id"], "model": self._origin(job) or stand.model, "data": data,
            "adapter": _adapter(stand.adapter, job.get("lora") or {}),
            "method": _method(job), "hyperparameters": hyperparameters,
            "checkpoints": {"every": "epoch", "keep": 3}, "seed": job["seed"],
        }  # fmt: skip
        return JobSpec.model_validate(document)

    def _origin(self, job: dict[str, Any]) -> str | None:
        """Export the weights of the tuned model from which this job continues."""
        model_name = job.get("trains") or job["request"]["model"]
        for parent in self._store.all("job", job["api"]):
            if model_name.startswith(parent["fine_tuned_model"]) and parent["id"] != job["id"]:
                target = self._folder / "exported" / parent["id"]
                if not target.exists():
                    target.parent.mkdir(exist_ok=True)
                    self._job(parent).export(target, merged=True)
                return str(target)
        return None

    def _run(self, job: dict[str, Any]) -> dict[str, Any] | None:
        return self._store.get("run", job["api"], job["id"])

    def _job(self, job: dict[str, Any]) -> Job:
        run = self._run(job)
        if run is None or run["ref"] is None:
            raise JobNotFound(f"{job['id']} has no run")
        return Job(self._client, JobRef.parse(run["ref"]))

    # -- reading -----------------------------------------------------------------------------------------------------

    def status(self, job: dict[str, Any], now: float) -> JobStatus:
        """See `Engine.status`."""
        if job["course"]["error"] is not None:
            course = TrainingPlan(**job["course"])
            return status_at(job["id"], job["created"], job["seed"], Script(), course, Actions(), now)
        if (ended := self._ended.get(job["id"])) is not None:
            return ended
        acts = Actions(tuple((at, kind) for at, kind in job["acts"]))
        run = self._run(job)
        if run is None:
            return train_status.waiting(job, acts)
        if run["ref"] is None:
            return train_status.refused(job, run)
        try:
            seen = train_status.seen(job, acts, self._job(job))
        except JobNotFound as error:  # the folder has been cleared
            return train_status.refused(job, run | {"error": str(error)})
        if seen.finished_at is not None and not (acts.first("cancel") and seen.word != "cancelled"):
            self._ended[job["id"]] = seen
        return seen

    def results(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Engine.results`."""
        return train_status.results(self._job(job).metrics())

    def files(self, job: dict[str, Any]) -> Path | None:
        """The folder of an ended job's model, or None if it has none."""
        try:
            return Path(str(self._job(job).model().uri))
        except CloudtuneError:
            return None

    def runs(self) -> list[dict[str, Any]]:
        """The reference and the spec of each job's local run."""
        return self._store.all("run")

    def act(self, job: dict[str, Any], kind: str, now: float) -> None:
        """See `Engine.act`. A cancel before the run is started stops it right after its start."""
        job["acts"].append([now, kind])

        def carry_out() -> None:
            with contextlib.suppress(CloudtuneError):  # a run that ended meanwhile needs no stop
                getattr(self._job(job), kind)()

        if self._run(job) is None:
            self._starting.submit(carry_out)
        else:
            carry_out()

    # -- inference ---------------------------------------------------------------------------------------------------

    def answer(self, model: Served, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Spoken:
        """See `Engine.answer`. A base model answers once a job on it has ended, as its weights are then available."""
        try:
            tuned = self._tuned(model)
        except CloudtuneError as error:
            raise ApiError(503, f"The model {model.name} is not loaded: {error}", type="server_error") from error
        options = GenerateOptions(
            max_tokens=sampling.max_tokens, temperature=sampling.temperature, top_p=sampling.top_p or 1e-6,
            seed=sampling.seed, base=model.job is None and model.folder is None,
        )  # fmt: skip
        prompt = [{"role": str(m["role"]), "content": train_status.words(m)} for m in messages]
        try:
            said = next(iter(self._backend.generate(tuned, [prompt], options)))
        except CloudtuneError as error:
            raise ApiError(400, str(error)) from error
        return Spoken(
            pieces=train_status.pieces(said.text), finish_reason=said.finish_reason or "stop",
            prompt_tokens=said.prompt_tokens or 0, completion_tokens=said.completion_tokens or 0,
        )  # fmt: skip

    def _tuned(self, model: Served) -> Any:
        if model.folder is not None:
            return train_status.imported(model)
        job = model.job
        if job is None:
            made = [one for one in self._store.all("job") if one["base"] == model.base]
            job = next((one for one in made if self.status(one, time.time()).word == "succeeded"), None)
            if job is None:
                raise JobNotFound("no job on this base model has ended yet")
        tuned = self._job(job).model()
        if model.step is None:
            return tuned
        return train_status.checkpoint_model(
            tuned, self._job(job).checkpoints(), model.step, self._folder / "checkpoints"
        )

    def close(self) -> None:
        """Leave the runs of a persistent store running, as the local back end does; stop the others."""
        self._starting.shutdown(wait=True, cancel_futures=True)
        if self._store.is_kept:
            return
        going = [Job(self._client, JobRef.parse(run["ref"])) for run in self.runs() if run["ref"]]
        going = [job for job in going if not job.state.is_terminal]
        for job in going:
            with contextlib.suppress(CloudtuneError):
                job.cancel()
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and any(not job.state.is_terminal for job in going):
            time.sleep(0.1)
        shutil.rmtree(self._folder, ignore_errors=True)


def _adapter(stands: dict[str, Any] | str | None, hyperparameters: dict[str, float]) -> dict[str, Any] | str | None:
    """The local adapter in place of the vendor's, with the requested settings; full training stays full."""
    known = {"type": stands} if isinstance(stands, str) else stands
    if not hyperparameters or known is None or known.get("type", "lora") != "lora":
        return stands
    whole = {name: int(value) for name, value in hyperparameters.items() if name == "rank"}
    return known | hyperparameters | whole


def _method(job: dict[str, Any]) -> dict[str, Any]:
    if job["method"] not in _METHODS:
        raise ConfigError(f"the train engine does not support {job['method']} jobs; use the script engine")
    beta = job["hyperparameters"].get("beta", "auto")
    return {"name": _METHODS[job["method"]]} | ({} if beta == "auto" else {"beta": beta})
