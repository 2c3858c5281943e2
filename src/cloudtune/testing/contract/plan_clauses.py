"""Clauses about what happens before anything is sent: 1, 2, 14, 18 and 21."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest

from cloudtune.backend import VERBS
from cloudtune.errors import CloudtuneError, InputError, PolicyRefused, UnsupportedError
from cloudtune.optional import Priced
from cloudtune.plan import plan_from_json, plan_to_json
from cloudtune.spec import Source, spec_features
from cloudtune.state import JobState
from cloudtune.testing import faults
from cloudtune.testing.contract.features import asking, needed_by, values_of
from cloudtune.testing.contract.harness import (
    Harness,
    ask,
    ledger_url,
    needs,
    request_for,
    submitted,
    untouched,
)
from cloudtune.testing.contract.no_io import no_io
from cloudtune.testing.fork_server import Order, shared_fork_server
from cloudtune.testing.world import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloudtune.backend import Backend
    from cloudtune.client import Client
    from cloudtune.plan import Plan
    from cloudtune.spec import JobSpec
    from cloudtune.testing.fork_server import ForkServer
    from cloudtune.testing.world import World


class PlanClauses(Harness):
    """See the module."""

    def test_01_plan_is_pure(self, world: World, backend: Backend) -> None:
        """1: plan does no I/O, makes no request, changes nothing, and is repeatable, also from another object."""
        request = request_for(world, backend, world.spec())
        other = world.backend()
        with untouched(world), no_io():
            plan = backend.plan(request)
            assert plan_to_json(backend.plan(request)) == plan_to_json(plan)
            assert plan_to_json(other.plan(request)) == plan_to_json(plan)
            if isinstance(backend, Priced):
                assert backend.estimate(request) == backend.estimate(request)
        assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
        assert sum(step.makes_job for step in plan.steps) == 1

    def test_01_plan_reads_no_rows(self, world: World, backend: Backend) -> None:
        """1: the counts are all that plan needs of the rows, wherever those are."""
        request = request_for(world, backend, world.spec())
        source = Source(path="s3://somewhere-else/rows.jsonl")
        spec = request.spec.model_copy(update={"data": request.spec.data.model_copy(update={"train": source})})
        with untouched(world), no_io():
            plan = backend.plan(msgspec.structs.replace(request, spec=spec))
            assert plan.steps == backend.plan(request).steps
            if isinstance(backend, Priced):
                assert backend.estimate(msgspec.structs.replace(request, spec=spec)) == backend.estimate(request)

    def test_01_the_first_plan_is_pure(self, world: World, fork_server: ForkServer) -> None:
        """1: in a fresh process too, where nothing is loaded or kept from another plan; and check runs once."""
        recipe = world.recipe()
        planning = Recipe(
            target="cloudtune.testing.contract.children:open_planning",
            arguments={"target": recipe.target, "arguments": recipe.arguments},
        )
        document = world.spec().model_dump(mode="json")
        order = Order(do="plan", recipe=planning, spec=document, ledger=ledger_url(world))
        outcome = fork_server.run(order)
        assert outcome.error is None

    def test_01_plan_equals_its_snapshot(self, world: World, backend: Backend) -> None:
        """1: a change of what would be sent is seen in review."""
        request = request_for(world, backend, world.spec())
        cost = backend.estimate(request) if isinstance(backend, Priced) else None
        plan = msgspec.structs.replace(backend.plan(request), cost=cost)
        text = json.dumps(plan_to_json(plan), indent=1, sort_keys=True).replace(str(world.root), "<root>")
        assert self.snapshots is not None, "say where the snapshots lie: `snapshots = Path(__file__).parent / ...`"
        file = self.snapshots / f"{type(self).__name__}.plan.json"
        if os.environ.get("CLOUDTUNE_UPDATE_SNAPSHOTS"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text + "\n", encoding="utf-8")
        assert file.exists(), "there is no snapshot yet; write it with CLOUDTUNE_UPDATE_SNAPSHOTS=1"
        assert json.loads(text) == json.loads(file.read_text(encoding="utf-8"))

    @needs("wire")
    def test_01_what_is_sent_is_what_was_planned(self, world: World, client: Client) -> None:
        """1: every body that the vendor received is in the plan, with output references replaced."""
        plan = client.plan(world.spec())
        client.submit(plan)
        received = world.received()
        assert received
        for body in received:
            assert any(_fits(part, body) for step in plan.steps for part in _parts(step.request)), body

    def test_02_no_secret_is_told(
        self, world: World, backend: Backend, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """2: no credential in plans, reprs, logs, command lines, errors, the ledger or what is written here."""
        caplog.set_level(logging.DEBUG)
        plan = client.plan(world.spec())
        job = submitted(client, world, JobState.RUNNING)
        texts = {"plan": json.dumps(plan_to_json(plan)), "reprs": repr((plan, backend, client, job, job.snapshot()))}
        texts["command lines"] = "\n".join(" ".join(command) for command in _command_lines())
        if "forbidden" not in world.lacks:
            world.fail("get", faults.forbidden())
            with pytest.raises(CloudtuneError) as refused:
                job.snapshot()
            texts["errors"] = f"{refused.value} {refused.value!r}"
        texts["logs"] = caplog.text
        for file in _written(world):
            texts[str(file)] = file.read_bytes().decode(errors="replace")
        for secret in world.secrets:
            leaks = [place for place, text in texts.items() if secret in text]
            assert not leaks, leaks

    def test_14_every_feature_is_answered(self, backend: Backend) -> None:
        """14: for each feature of the spec and each verb: supported, or one sentence why not."""
        can = backend.capabilities
        known = {*spec_features(), *VERBS}
        assert can.supports <= known, can.supports - known
        assert not can.supports & can.reasons.keys()
        assert known - can.supports == can.reasons.keys()
        assert all(len(reason) > 10 for reason in can.reasons.values()), can.reasons
        assert set(can.translated) <= can.supports
        assert can.inherent <= set(can.translated)
        assert any(feature.startswith("method:") for feature in can.supports)

    def test_14_what_it_cannot_do_is_refused_at_once(self, world: World, backend: Backend, client: Client) -> None:
        """14: before any I/O, every refusal in one error, each with its reason."""
        can = backend.capabilities
        for wanted in _refusable(can):
            spec = asking(world, can, wanted)
            with untouched(world), pytest.raises(UnsupportedError) as refused:
                client.plan(spec)
            refusals = {_named(problem.field): problem.message for problem in refused.value.problems}
            missing = {name for name in wanted if _named(name) not in refusals}
            assert not missing
            assert [name for name in wanted if can.reasons[name] not in refusals[_named(name)]] == []

    def test_14_nothing_is_ignored(self, world: World, backend: Backend) -> None:
        """14: every supported feature changes what would be sent, unless it holds there for every job."""
        can = backend.capabilities
        plain = asking(world, can, {})
        ignored = []
        for feature in sorted(can.supports - set(VERBS)):
            if feature in plain.requested_fields():
                continue  # it is in the plain request already
            base = _bare(world, can, [feature])
            specs = [asking(world, can, {feature: value}) for value in values_of(feature)]
            possible = [spec for spec in specs if not _errors(backend, spec)]
            assert possible, f"{feature} is declared, but none of the values tried is accepted"
            if feature in can.inherent:
                continue
            if all(_steps(world, backend, spec) == _steps(world, backend, base) for spec in possible):
                ignored.append(feature)
        assert not ignored

    def test_14_drops_are_told(self, world: World, backend: Backend, client: Client) -> None:
        """14: ``unsupported: drop`` leaves out what it names in the plan, and nothing else."""
        can = backend.capabilities
        fields = (wanted for wanted in _refusable(can) if not any(":" in name for name in wanted))
        wanted = next(fields, {})  # a method or an adapter cannot be left out
        if not any(feature.startswith("adapter:") for feature in can.supports):
            # Their adapter cannot be left out: that would be another training.
            wanted = {name: value for name, value in wanted.items() if not name.startswith("adapter.")}
        spec = asking(world, can, wanted).model_copy(update={"unsupported": "drop"})
        plan = client.plan(spec)
        assert {drop.field: drop.reason for drop in plan.dropped} == {name: can.reasons[name] for name in wanted}
        assert plan.steps == client.plan(_bare(world, can, wanted)).steps

    def test_23_an_unknown_cost_is_named_and_a_limit_kept(self, world: World, backend: Backend, client: Client) -> None:
        """23: a plan has figures or names what is unknown, and refuses a job that its cost limit does not pay for."""
        cost = client.plan(world.spec()).cost
        if cost is not None:
            assert cost.basis
            assert cost.at_most_usd is not None or cost.unknown
        before = world.fingerprint()
        with pytest.raises(PolicyRefused) as refused:
            client.plan(world.spec(limits={"max_cost_usd": 1e-6}))
        assert refused.value.exit_code == 7
        assert world.fingerprint() == before

    def test_14_overrides_are_checked(self, world: World, backend: Backend, client: Client) -> None:
        """14: a key of ``overrides`` that this back end does not know is refused; another back end's are left alone."""
        with untouched(world), pytest.raises(UnsupportedError) as refused:
            client.plan(world.spec(overrides={backend.name: {"surely_unknown": 1}}))
        assert [problem.field for problem in refused.value.problems] == [f"overrides.{backend.name}.surely_unknown"]
        plain = client.plan(world.spec())
        assert client.plan(world.spec(overrides={"elsewhere": {"surely_unknown": 1}})).steps == plain.steps

    def test_14_a_model_for_another_backend_is_no_model(self, world: World, client: Client) -> None:
        """14: a spec that names models for other back ends only is refused."""
        with untouched(world), pytest.raises(UnsupportedError, match="model"):
            client.plan(world.spec(model={"elsewhere": "some-model"}))

    @needs("sdk")
    def test_18_a_missing_package_is_named(self, world: World) -> None:
        """18: without its packages nothing is made, and the error has the pip line."""
        hidden = {"modules": list(world.sdk_modules)}
        outcome = ask(
            shared_fork_server(bare=True), world, "submit", spec=world.spec(),
            prepare="cloudtune.testing.contract.children:hide", prepare_with=hidden,
        )  # fmt: skip
        assert outcome.raised() == "BackendNotInstalled", outcome.error
        assert outcome.error is not None
        assert "pip install" in outcome.error["message"]
        assert not world.jobs()

    @needs("row_limit")
    def test_21_a_row_over_the_limit_is_found_before_upload(self, world: World, client: Client) -> None:
        """21: with its line number, by plan."""
        spec, line = world.too_long()
        try:
            problems = client.plan(spec).warnings
        except InputError as error:
            problems = error.problems
        assert line in [problem.line for problem in problems], problems
        assert not world.uploads()

    def test_21_changed_fields_are_reported(self, world: World, client: Client) -> None:
        """21: the plan reports a field of the rows that is not used, with its location."""
        spec = world.spec()
        lines = [
            json.dumps({"prompt": f"{n}?", "completion": f"{n}!", "difficulty": n}, separators=(",", ":"))
            for n in range(12)
        ]
        rows = world.root / "extra.jsonl"
        rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
        changed = spec.model_copy(update={"data": spec.data.model_copy(update={"train": Source(path=str(rows))})})
        reported = [problem for problem in client.plan(changed).warnings if "difficulty" in str(problem)]
        assert reported, "the rows' field `difficulty` is dropped without a word"
        assert reported[0].file == str(rows)


def _refusable(can: Any) -> Iterator[dict[str, Any]]:
    """Sets of unsupported features that one spec can ask for: all the fields together, each choice by itself."""
    fields = {name: values_of(name)[0] for name in can.reasons if ":" not in name}
    ratio = {"hyperparameters.warmup_ratio"} if "hyperparameters.warmup_steps" in fields else set()
    if together := {name: value for name, value in fields.items() if name not in ratio}:
        yield together
    for name in can.reasons:
        if name in ratio or name.startswith(("method:", "adapter:")):
            yield {name: values_of(name)[0]}


def _bare(world: World, can: Any, wanted: Iterable[str]) -> JobSpec:
    """What is left of a spec when these features are taken out of it: the method and adapter that they need."""
    return asking(world, can, {f"{key}:": value for key, value in needed_by(can, wanted).items()})


def _named(feature: str | None) -> str:
    kind, colon, _ = (feature or "").partition(":")
    return f"{kind}.{'name' if kind == 'method' else 'type'}" if colon else feature or ""


def _errors(backend: Backend, spec: JobSpec) -> list[Any]:
    return [problem for problem in backend.check(spec) if problem.severity == "error"]


def _steps(world: World, backend: Backend, spec: JobSpec) -> Any:
    plan: Plan = backend.plan(request_for(world, backend, spec))
    return plan_to_json(plan)["steps"]


def _parts(request: Any) -> Iterator[Any]:
    """The request and its parts that could be a body. A lone placeholder is none, since it would match anything."""
    if isinstance(request, dict) and "$step" not in request:
        yield request
        for value in request.values():
            yield from _parts(value)


def _fits(planned: Any, received: Any) -> bool:
    """Whether the body is the planned one, whatever its places were filled with."""
    if isinstance(planned, dict) and "$step" in planned:
        return received is not None
    if isinstance(planned, dict) and isinstance(received, dict):
        return planned.keys() == received.keys() and all(_fits(planned[key], received[key]) for key in planned)
    if isinstance(planned, list | tuple) and isinstance(received, list):
        return len(planned) == len(received) and all(map(_fits, planned, received))
    return bool(planned == received)


def _command_lines() -> Iterator[list[str]]:
    for process in psutil.Process().children(recursive=True):
        try:
            yield process.cmdline()
        except psutil.NoSuchProcess:
            continue


def _written(world: World) -> Iterator[Path]:
    """The files that cloudtune has written: the ledger, the spool beside it, and the back end's own folders."""
    for place in (world.root / "spool", *world.folders):
        yield from (file for file in Path(place).rglob("*") if file.is_file())
    yield from world.root.glob("ledger.db*")
