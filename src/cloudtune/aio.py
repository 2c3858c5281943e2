"""The client for asyncio. Every call runs in a worker thread, so nothing blocks the event loop.

Waiting for a job sleeps on the event loop and uses a thread only while it polls.

`AsyncClient` and `AsyncJob` have the methods of `cloudtune.Client` and `cloudtune.Job`, with the same arguments,
results and errors.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from cloudtune.async_iteration import polled, started_in_threads
from cloudtune.client import Client
from cloudtune.watch import LONGEST_POLL_S, LOST_AFTER_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

    from cloudtune.backend import Backend
    from cloudtune.evaluation.costs import EvaluationCost
    from cloudtune.evaluation.result import EvaluateOptions, Evaluation
    from cloudtune.execute import StepUpdate
    from cloudtune.hosting import Deployments
    from cloudtune.job import Job
    from cloudtune.ledger.costs import JobCost
    from cloudtune.ledger.rows import Attempt, Rows
    from cloudtune.moving import Move
    from cloudtune.optional import GenerateOptions, InPlace, Input, Prompt
    from cloudtune.plan import Plan
    from cloudtune.report.document import Report
    from cloudtune.spec import Data, JobSpec, Source
    from cloudtune.state import (
        Checkpoint,
        Deployment,
        Event,
        Generation,
        JobRef,
        JobSnapshot,
        JobState,
        Metric,
        Prediction,
        TunedModel,
    )
    from cloudtune.tuning.result import TuneResult
    from cloudtune.tuning.study import TuneUpdate
    from cloudtune.watch import Update


class AsyncJob:
    """`cloudtune.Job` for asyncio."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.ref = job.ref

    def __repr__(self) -> str:
        return f"AsyncJob({str(self.ref)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncJob) and other.ref == self.ref

    def __hash__(self) -> int:
        return hash(self.ref)

    async def snapshot(self) -> JobSnapshot:
        """See `Job.snapshot`."""
        return await asyncio.to_thread(self._job.snapshot)

    async def state(self) -> JobState:
        """See `Job.state`. A method, because it sends a request."""
        return (await self.snapshot()).state

    async def events(self, after: str | None = None) -> Sequence[Event]:
        """See `Job.events`."""
        return await asyncio.to_thread(self._job.events, after)

    async def metrics(self, after: str | None = None) -> Sequence[Metric]:
        """See `Job.metrics`."""
        return await asyncio.to_thread(self._job.metrics, after)

    async def checkpoints(self) -> Sequence[Checkpoint]:
        """See `Job.checkpoints`."""
        return await asyncio.to_thread(self._job.checkpoints)

    async def model(self, *, trust_remote_code: bool = False) -> TunedModel:
        """See `Job.model`."""
        return await asyncio.to_thread(self._job.model, trust_remote_code=trust_remote_code)

    async def result(self) -> TunedModel:
        """See `Job.result`."""
        return await asyncio.to_thread(self._job.result)

    async def report(self, *, evaluation: Evaluation | None = None) -> Report:
        """See `Job.report`."""
        return await asyncio.to_thread(self._job.report, evaluation=evaluation)

    def watch(
        self,
        *,
        timeout: float | None = None,
        stall_after: float | None = None,
        lost_after: float = LOST_AFTER_S,
        longest_poll: float = LONGEST_POLL_S,
        cancel_after: float | None = None,
    ) -> AsyncIterator[Update]:
        """See `Job.watch`."""
        polls = self._job._polls(
            timeout=timeout, stall_after=stall_after, lost_after=lost_after, longest_poll=longest_poll,
            cancel_after=cancel_after,
        )  # fmt: skip
        return polled(polls, self._job._client.clock)

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        stall_after: float | None = None,
        cancel_after: float | None = None,
        on_update: Callable[[Update], None] | None = None,
    ) -> TunedModel:
        """See `Job.wait`. Cancelling the coroutine does not affect the job."""
        async for update in self.watch(timeout=timeout, stall_after=stall_after, cancel_after=cancel_after):
            if on_update is not None:
                on_update(update)
        return await self.model()

    async def cancel(self) -> None:
        """See `Job.cancel`."""
        await asyncio.to_thread(self._job.cancel)

    async def pause(self) -> None:
        """See `Job.pause`."""
        await asyncio.to_thread(self._job.pause)

    async def resume(self, *, accept_unknown_cost: bool = False) -> AsyncJob:
        """See `Job.resume`."""
        return AsyncJob(await asyncio.to_thread(self._job.resume, accept_unknown_cost=accept_unknown_cost))

    async def delete(self) -> None:
        """See `Job.delete`."""
        await asyncio.to_thread(self._job.delete)

    async def clear(self) -> None:
        """See `Job.clear`."""
        await asyncio.to_thread(self._job.clear)

    async def deploy(
        self,
        *,
        on_step: Callable[[StepUpdate], None] | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Deployment:
        """See `Job.deploy`. ``on_step`` is called in the worker thread."""
        return await asyncio.to_thread(
            self._job.deploy, on_step=on_step, trust_remote_code=trust_remote_code, **options
        )

    def generate(
        self, prompts: Sequence[Prompt], options: GenerateOptions | None = None, *, trust_remote_code: bool = False
    ) -> AsyncIterator[Generation]:
        """See `Job.generate`."""
        return started_in_threads(lambda: self._job.generate(prompts, options, trust_remote_code=trust_remote_code))

    def predict(self, inputs: Sequence[Input], *, trust_remote_code: bool = False) -> AsyncIterator[Prediction]:
        """See `Job.predict`."""
        return started_in_threads(lambda: self._job.predict(inputs, trust_remote_code=trust_remote_code))

    async def export(self, to: Path, *, merged: bool = False, trust_remote_code: bool = False) -> Sequence[Path]:
        """See `Job.export`."""
        return await asyncio.to_thread(self._job.export, to, merged=merged, trust_remote_code=trust_remote_code)


class AsyncClient:
    """`cloudtune.Client` for asyncio. Accepts the same arguments, or a client to share."""

    def __init__(self, backend: str | Backend | Client | None = None, **arguments: Any) -> None:
        self._client = backend if isinstance(backend, Client) else Client(backend, **arguments)

    async def close(self) -> None:
        """See `Client.close`."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def plan(
        self,
        spec: JobSpec,
        *,
        backend: str | None = None,
        again: bool = False,
        resume: bool = False,
        accept_unknown_cost: bool = False,
    ) -> Plan:
        """See `Client.plan`."""
        return await asyncio.to_thread(
            self._client.plan, spec, backend=backend, again=again, resume=resume,
            accept_unknown_cost=accept_unknown_cost,
        )  # fmt: skip

    async def submit(
        self,
        spec: JobSpec | Plan,
        *,
        backend: str | None = None,
        again: bool = False,
        resume: bool = False,
        trust_remote_code: bool = False,
        trust_reward: bool = False,
        accept_unknown_cost: bool = False,
        on_step: Callable[[StepUpdate], None] | None = None,
    ) -> AsyncJob:
        """See `Client.submit`. ``on_step`` is called in the worker thread."""
        job = await asyncio.to_thread(
            self._client.submit, spec, backend=backend, again=again, resume=resume,
            trust_remote_code=trust_remote_code, trust_reward=trust_reward,
            accept_unknown_cost=accept_unknown_cost, on_step=on_step,
        )  # fmt: skip
        return AsyncJob(job)

    async def resume(
        self, ref: JobRef, *, accept_unknown_cost: bool = False, on_step: Callable[[StepUpdate], None] | None = None
    ) -> AsyncJob:
        """See `Client.resume`."""
        resume = self._client.resume
        return AsyncJob(await asyncio.to_thread(resume, ref, accept_unknown_cost=accept_unknown_cost, on_step=on_step))

    async def move(self, job: JobSpec | Job | JobRef | str, to: str, *, model: str | None = None) -> Move:
        """See `Client.move`."""
        return await asyncio.to_thread(self._client.move, job, to, model=model)

    async def spec_of(self, job: Job | JobRef | str) -> JobSpec:
        """See `Client.spec_of`."""
        return await asyncio.to_thread(self._client.spec_of, job)

    async def plan_deploy(self, model: TunedModel, *, ttl: float | None = None, **options: Any) -> Plan:
        """See `Client.plan_deploy`."""
        return await asyncio.to_thread(self._client.plan_deploy, model, ttl=ttl, **options)

    async def deploy(
        self,
        model_or_plan: TunedModel | Plan,
        *,
        on_step: Callable[[StepUpdate], None] | None = None,
        ttl: float | None = None,
        **options: Any,
    ) -> Deployment:
        """See `Client.deploy`. ``on_step`` is called in the worker thread."""
        return await asyncio.to_thread(self._client.deploy, model_or_plan, on_step=on_step, ttl=ttl, **options)

    async def deployments(self, *, backend: str | None = None) -> Deployments:
        """See `Client.deployments`."""
        return await asyncio.to_thread(self._client.deployments, backend=backend)

    async def sweep(self, *, backend: str | None = None, apply: bool = False) -> Deployments:
        """See `Client.sweep`."""
        return await asyncio.to_thread(self._client.sweep, backend=backend, apply=apply)

    async def undeployed(self, deployments: Deployments, *, backend: str | None = None) -> list[TunedModel]:
        """See `Client.undeployed`."""
        return await asyncio.to_thread(self._client.undeployed, deployments, backend=backend)

    async def remove(self, deployment: Deployment, *, on_step: Callable[[StepUpdate], None] | None = None) -> None:
        """See `Client.remove`."""
        await asyncio.to_thread(self._client.remove, deployment, on_step=on_step)

    async def plan_import(
        self,
        source: Path | str | Job | InPlace,
        *,
        backend: str | None = None,
        name: str | None = None,
        again: bool = False,
        on_export: Callable[[Path], None] | None = None,
    ) -> Plan:
        """See `Client.plan_import`. ``on_export`` is called in the worker thread."""
        return await asyncio.to_thread(
            self._client.plan_import, source, backend=backend, name=name, again=again, on_export=on_export
        )

    async def import_model(
        self,
        source_or_plan: Path | str | Job | InPlace | Plan,
        *,
        backend: str | None = None,
        name: str | None = None,
        again: bool = False,
        on_step: Callable[[StepUpdate], None] | None = None,
    ) -> AsyncJob:
        """See `Client.import_model`. ``on_step`` is called in the worker thread."""
        job = await asyncio.to_thread(
            self._client.import_model, source_or_plan, backend=backend, name=name, again=again, on_step=on_step
        )
        return AsyncJob(job)

    async def attach(self, ref: JobRef | str) -> AsyncJob:
        """See `Client.attach`."""
        return AsyncJob(await asyncio.to_thread(self._client.attach, ref))

    async def jobs(
        self, *, backend: str | None = None, remote: bool = False, limit: int | None = None
    ) -> list[JobSnapshot]:
        """See `Client.jobs`."""
        return await asyncio.to_thread(self._client.jobs, backend=backend, remote=remote, limit=limit)

    async def costs(self, *, backend: str | None = None) -> Rows[JobCost]:
        """See `Client.costs`."""
        return await asyncio.to_thread(self._client.costs, backend=backend)

    async def snapshots(self, refs: Iterable[JobRef]) -> list[JobSnapshot]:
        """See `Client.snapshots`."""
        return await asyncio.to_thread(self._client.snapshots, refs)

    def watch_many(
        self,
        refs: Sequence[JobRef],
        *,
        timeout: float | None = None,
        repeat_after: float | None = None,
    ) -> AsyncIterator[JobSnapshot]:
        """See `Client.watch_many`."""
        return polled(self._client._polls(refs, timeout=timeout, repeat_after=repeat_after), self._client.clock)

    async def tune(
        self,
        spec: JobSpec,
        *,
        backend: str | None = None,
        trust_remote_code: bool = False,
        trust_reward: bool = False,
        accept_unknown_cost: bool = False,
        on_update: Callable[[TuneUpdate], None] | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> TuneResult:
        """See `Client.tune`. ``on_update`` and ``on_progress`` are called in the worker thread."""
        return await asyncio.to_thread(
            self._client.tune, spec, backend=backend, trust_remote_code=trust_remote_code, trust_reward=trust_reward,
            accept_unknown_cost=accept_unknown_cost, on_update=on_update, on_progress=on_progress,
        )  # fmt: skip

    async def evaluate(
        self,
        model: Job | JobRef | str,
        data: Source | Data | str | None = None,
        *,
        against: Sequence[Job | JobRef | str] = (),
        guard: Source | str | None = None,
        options: EvaluateOptions | None = None,
        spec: JobSpec | None = None,
        store: bool = True,
        trust_remote_code: bool = False,
        trust_reward: bool = False,
        on_progress: Callable[[str, int, int], None] | None = None,
        on_cost: Callable[[EvaluationCost], None] | None = None,
    ) -> Evaluation:
        """See `Client.evaluate`. ``on_progress`` and ``on_cost`` are called in the worker thread."""
        return await asyncio.to_thread(
            self._client.evaluate, model, data, against=against, guard=guard, options=options, spec=spec,
            store=store, trust_remote_code=trust_remote_code, trust_reward=trust_reward,
            on_progress=on_progress, on_cost=on_cost,
        )  # fmt: skip

    async def report(self, job: Job | JobRef | str, *, evaluation: Evaluation | None = None) -> Report:
        """See `Client.report`."""
        return await asyncio.to_thread(self._client.report, job, evaluation=evaluation)

    async def evaluation(self, job: Job | JobRef | str) -> Evaluation | None:
        """See `Client.evaluation`."""
        return await asyncio.to_thread(self._client.evaluation, job)

    async def unfinished(self) -> Rows[Attempt]:
        """See `Client.unfinished`."""
        return await asyncio.to_thread(self._client.unfinished)
