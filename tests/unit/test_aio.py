"""The async mirror has the same methods, and its work does not stop the loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloudtune.aio import AsyncClient, AsyncJob
from cloudtune.client import Client
from cloudtune.errors import JobFailed, WaitTimeout
from cloudtune.job import Job
from cloudtune.state import JobRef, JobSnapshot, JobState
from cloudtune.testing.scripted_world import ScriptedWorld

# What only looks at the client itself has no mirror.
OF_THE_CLIENT = {"backend", "clock", "config", "ledger"}


def _public(cls: type) -> dict[str, Any]:
    found = {name: value for name, value in vars(cls).items() if not name.startswith("_")}
    return {name: value for name, value in found.items() if callable(value) or isinstance(value, property)}


@pytest.mark.parametrize(("mirror", "original"), [(AsyncClient, Client), (AsyncJob, Job)])
def test_the_mirror_has_the_same_methods(mirror: type, original: type) -> None:
    own, theirs = _public(mirror), _public(original)
    assert set(own) == set(theirs) - OF_THE_CLIENT
    for name, method in theirs.items():
        if name in OF_THE_CLIENT or isinstance(method, property):
            continue
        wanted, given = inspect.signature(method).parameters, inspect.signature(own[name]).parameters
        assert list(given) == list(wanted), name
        for parameter in wanted.values():
            mirrored = given[parameter.name]
            assert (mirrored.kind, mirrored.default) == (parameter.kind, parameter.default), f"{name}({parameter.name})"
            assert mirrored.annotation == parameter.annotation, f"{name}({parameter.name})"


def test_every_method_of_the_mirror_is_awaited_or_iterated() -> None:
    for cls in (AsyncClient, AsyncJob):
        for name, method in _public(cls).items():
            returns = str(inspect.signature(method).return_annotation)
            assert inspect.iscoroutinefunction(method) or "AsyncIterator" in returns, name


@pytest.fixture
def world(memory_path: Path) -> ScriptedWorld:
    return ScriptedWorld(memory_path)


@pytest.fixture
def client(world: ScriptedWorld) -> AsyncClient:
    return AsyncClient(world.backend(), ledger=f"{world.root}/ledger.db", clock=world.clock)


def test_a_whole_life(world: ScriptedWorld, client: AsyncClient) -> None:
    async def live() -> None:
        plan = await client.plan(world.spec())
        job = await client.submit(plan)
        assert await client.attach(str(job.ref)) == job
        assert len({job, await client.attach(job.ref)}) == 1
        assert [reported.ref for reported in await client.jobs()] == [job.ref]
        assert await job.state() is JobState.QUEUED
        world.reach(job.ref, JobState.RUNNING)
        await job.pause()
        assert (await job.resume()).ref == job.ref
        updates = [update async for update in job.watch()]
        assert updates[-1].snapshot.state is JobState.SUCCEEDED
        model = await job.wait()
        assert model == await job.result() == await job.model()
        assert [answer.text async for answer in job.generate(["abc"])] == [f"cba says {model.id}"]
        made = await job.deploy(name="mine")
        assert (made.id, made.model) == ("mine", model.id)
        assert await client.deploy(await client.plan_deploy(model, name="mine")) == made
        assert await client.deployments() == [made]
        await client.remove(made)
        assert await client.deployments(backend="scripted") == []
        assert len(await job.events()) > 3
        assert await job.metrics()
        assert (await job.checkpoints())[-1].last
        assert [seen.state async for seen in client.watch_many([job.ref])] == [JobState.SUCCEEDED]
        assert await client.unfinished() == []
        await job.delete()

    asyncio.run(live())


def test_errors_arrive_as_they_are(world: ScriptedWorld, client: AsyncClient) -> None:
    async def fail() -> None:
        job = await client.submit(world.spec())
        with pytest.raises(WaitTimeout):
            await job.wait(timeout=1.0)
        world.reach(job.ref, JobState.FAILED, message="no luck")
        with pytest.raises(JobFailed, match="no luck"):
            await job.wait()
        with pytest.raises(JobFailed):
            await job.result()

    asyncio.run(fail())


def test_the_loop_goes_on_meanwhile_and_leaving_leaves_the_job_alone(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ScriptedWorld(memory_path, real_time=True)
    backend = world.backend()
    get, requested, answering = backend.get, threading.Event(), threading.Event()

    def slow(ref: JobRef) -> JobSnapshot:
        requested.set()
        assert answering.wait(60), "a slow vendor must not stop the loop"
        return get(ref)

    async def leave() -> None:
        client = AsyncClient(backend, ledger=f"{world.root}/ledger.db", clock=world.clock)
        job = await client.submit(world.spec())
        monkeypatch.setattr(backend, "get", slow)
        waiting = asyncio.create_task(job.wait())
        assert await asyncio.to_thread(requested.wait, 60)
        answering.set()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await job.state() is JobState.QUEUED
        assert world.calls("cancel") == 0

    asyncio.run(leave())


def test_waits_leave_the_threads_to_others(memory_path: Path) -> None:
    """Twenty jobs are awaited on an executor with one thread, which other work can use all the time."""
    world = ScriptedWorld(memory_path, real_time=True)
    client = AsyncClient(world.backend(), ledger=f"{world.root}/ledger.db")

    async def live() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        jobs = [await client.submit(world.spec(name=f"job-{number}")) for number in range(20)]
        waits = [asyncio.create_task(job.wait()) for job in jobs]
        for _ in range(3):
            assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 60) == 7
            assert not any(wait.done() for wait in waits)
        for wait in waits:
            wait.cancel()
        assert await asyncio.gather(*waits, return_exceptions=True)

    asyncio.run(live())


def test_a_watch_opens_its_back_ends_in_a_thread(
    world: ScriptedWorld, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_in: set[int] = set()

    async def live() -> None:
        job = await client.submit(world.spec())
        backend = client._client.backend
        monkeypatch.setattr(
            client._client, "backend", lambda name: (opened_in.add(threading.get_ident()), backend(name))[1]
        )
        assert [seen async for seen in client.watch_many([job.ref])]

    asyncio.run(live())
    assert opened_in
    assert threading.get_ident() not in opened_in
