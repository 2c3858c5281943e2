"""Clauses about what is declared: 15 (every capability is exercised) and 19 (what is made can be managed)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.errors import CloudtuneError, InvalidRequest, JobNotFound, UnsupportedError
from cloudtune.optional import Exporter, GenerateOptions, Host, Prompt, capabilities_of
from cloudtune.state import JobState
from cloudtune.testing.contract.harness import Harness, needs, submitted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cloudtune.backend import Backend
    from cloudtune.client import Client
    from cloudtune.job import Job
    from cloudtune.state import Generation
    from cloudtune.testing.world import World

S = JobState


class VerbClauses(Harness):
    """See the module. Cancel, list, events, metrics and continue are exercised by clauses 8, 17, 16 and 7."""

    def test_15_what_is_not_declared_is_refused_with_the_reason(
        self, world: World, backend: Backend, client: Client
    ) -> None:
        """15: every missing verb has a reason, and its only request is for the job's state."""
        job = submitted(client, world, S.RUNNING)
        can = capabilities_of(backend, job.ref)
        held = world.fingerprint()
        for name, act in _acts(job, world.root / "not-made").items():
            verb = f"verb:{name}"
            if can.can(verb):
                continue
            with pytest.raises(UnsupportedError) as refused:
                act()
            assert can.reasons[verb] in str(refused.value)
        assert world.fingerprint() == held

    @needs("verb:pause", "paused")
    def test_15_pause(self, world: World, client: Client) -> None:
        """15: a running job can be paused."""
        job = submitted(client, world, S.RUNNING)
        job.pause()
        world.settle(job.ref)
        assert job.state is S.PAUSED

    @needs("verb:pause", "verb:resume", "paused")
    def test_15_resume(self, world: World, client: Client) -> None:
        """15: a paused job resumes, as the same job, and ends."""
        job = submitted(client, world, S.RUNNING, S.PAUSED)
        assert job.resume() == job
        world.settle(job.ref)
        assert job.snapshot().state is S.RUNNING
        world.reach(job.ref, S.SUCCEEDED)
        assert job.snapshot().state is S.SUCCEEDED

    @needs("verb:checkpoints")
    def test_15_checkpoints(self, world: World, client: Client) -> None:
        """15: those that were kept, oldest first; one is the last, and one the best."""
        job = submitted(client, world, S.RUNNING, S.SUCCEEDED)
        kept = job.checkpoints()
        assert kept
        assert len({checkpoint.id for checkpoint in kept}) == len(kept)
        assert [checkpoint.step for checkpoint in kept] == sorted(checkpoint.step or 0 for checkpoint in kept)
        assert [checkpoint.last for checkpoint in kept] == [False] * (len(kept) - 1) + [True]
        assert sum(checkpoint.best for checkpoint in kept) == 1

    @needs("verb:generate")
    def test_15_generate(self, world: World, backend: Backend, client: Client) -> None:
        """15: one answer for each prompt, in order, whole or streamed; also from the base model."""
        job = submitted(client, world, S.RUNNING, S.SUCCEEDED)
        if job.result().needs_deploy and isinstance(backend, Host):
            job.deploy()
        prompts: list[Prompt] = ["What is 2 plus 3?", [{"role": "user", "content": "And 4 plus 5?"}]]
        few = GenerateOptions(max_tokens=8)
        answers = list(job.generate(prompts, few))
        assert len(answers) == 2
        singly = [next(job.generate([prompt], few)).text for prompt in prompts]
        assert [answer.text for answer in answers] == singly
        assert not any(answer.partial for answer in answers)
        assert _joined(job.generate(prompts, GenerateOptions(max_tokens=8, stream=True))) == singly
        based = list(job.generate(prompts, GenerateOptions(max_tokens=8, base=True)))
        assert len(based) == 2
        assert based[0].model != answers[0].model

    @needs("verb:export")
    def test_15_export(self, world: World, backend: Backend, client: Client) -> None:
        """15: the files that it names are there; a folder that exists already is not written into."""
        assert isinstance(backend, Exporter)
        job = submitted(client, world, S.RUNNING, S.SUCCEEDED)
        files = job.export(world.root / "export")
        assert files
        assert all(file.is_file() and file.stat().st_size for file in files)
        with pytest.raises(CloudtuneError):
            job.export(world.root / "export")

    @needs("verb:deploy")
    def test_15_deploy(self, world: World, backend: Backend, client: Client) -> None:
        """15: a model that was deployed is listed and answers; one that was removed is not; both may be repeated."""
        assert isinstance(backend, Host)
        job = submitted(client, world, S.RUNNING, S.SUCCEEDED)
        model = job.result()
        plan = client.plan_deploy(model)
        assert (plan.purpose, plan.backend, plan.scope) == ("deploy", backend.name, model.scope)
        assert client.plan_deploy(model) == plan
        jobs = client.jobs()
        for _ in range(2):  # again after its end, as a person may: deploy, remove, deploy, remove
            made = client.deploy(plan)
            assert (made.backend, made.scope, made.model, made.state) == (backend.name, model.scope, model.id, "ready")
            assert job.deploy().id == made.id == plan.name  # by which the ledger finds its time to live
            standing = [one for one in client.deployments(backend=backend.name) if one.model == model.id]
            assert [one.id for one in standing] == [made.id]
            assert len(list(job.generate(["What is 2 plus 3?"], GenerateOptions(max_tokens=8)))) == 1
            client.remove(made)
            client.remove(made)
            assert [one for one in backend.deployments() if one.model == model.id] == []
        assert client.jobs() == jobs

    def test_15_no_model_before_the_end(self, world: World, backend: Backend, client: Client) -> None:
        """15: a job that runs has no model to use yet."""
        job = submitted(client, world, S.RUNNING)
        with pytest.raises(InvalidRequest):
            backend.model(job.ref)
        world.reach(job.ref, S.SUCCEEDED)
        model = job.model()
        assert (model.backend, model.scope, model.ref) == (backend.name, job.ref.scope, job.ref)
        assert model.base == job.snapshot().model

    @needs("verb:delete")
    def test_19_what_was_made_can_be_deleted(self, world: World, backend: Backend, client: Client) -> None:
        """19: then it is not found and not listed, and deleting it again is done already; a running job is refused."""
        other = submitted(client, world, S.RUNNING, S.SUCCEEDED, variant=1)
        job = submitted(client, world, S.RUNNING)
        with pytest.raises(InvalidRequest):
            job.delete()
        assert job.state is S.RUNNING
        world.reach(job.ref, S.SUCCEEDED)
        job.delete()
        with pytest.raises(JobNotFound):
            backend.get(job.ref)
        world.clock.sleep(world.list_lag_s)
        assert [shown.ref for shown in backend.list()] == [other.ref]
        job.delete()
        backend.delete(job.ref)
        assert [(shown.ref, shown.state) for shown in client.jobs()] == [(other.ref, S.SUCCEEDED)]
        backend.delete(other.ref)  # behind the ledger's back
        assert [(shown.ref, shown.state) for shown in client.jobs()] == [(other.ref, S.UNKNOWN)]

    def test_19_what_was_made_can_be_got_and_named(self, world: World, client: Client) -> None:
        """19: by reference, by id and by name, with the names of the job and of its model."""
        spec = world.spec()
        job = client.submit(spec)
        for text in (str(job.ref), job.ref.id, spec.name):
            assert client.attach(text) == job
        seen = job.snapshot()
        assert spec.name in seen.name
        assert seen.model
        assert seen.created_at is not None
        assert abs((seen.created_at - world.clock.now()).total_seconds()) < 3600

    def test_19_the_log_is_quiet(self, world: World, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        """19: nothing that goes well is logged as a warning."""
        caplog.set_level(logging.WARNING)
        submitted(client, world, S.RUNNING, S.SUCCEEDED).wait()
        assert caplog.text == ""


def _joined(generations: Iterable[Generation]) -> list[str]:
    """Return the complete answers, after checking that the parts before each add up to it."""
    whole, pieces = [], ""
    for answer in generations:
        if answer.partial:
            pieces += answer.text
            continue
        assert pieces in ("", answer.text)
        whole.append(answer.text)
        pieces = ""
    assert pieces == "", "an answer did not end"
    return whole


def _acts(job: Job, folder: Path) -> dict[str, Any]:
    """The calls on a running job, by verb."""
    return {
        "cancel": job.cancel,
        "checkpoints": job.checkpoints,
        "delete": job.delete,
        "deploy": job.deploy,
        "export": lambda: job.export(folder),
        "generate": lambda: job.generate(["?"]),
        "metrics": job.metrics,
        "pause": job.pause,
        "resume": job.resume,
    }
