"""The real trainer through the back end: steered, under limits, in several processes, in another interpreter."""

import json
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tests.local.backend.submitting import kill_all, run_of, wait_until

from cloudtune.client import Client
from cloudtune.errors import InputError, InvalidRequest, JobExpired, JobFailed
from cloudtune.optional import GenerateOptions
from cloudtune.spec import JobSpec
from cloudtune.state import TunedModel
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.tiny import write_tiny_model

pytestmark = [pytest.mark.timeout(400), pytest.mark.starts_trainer]
PATIENCE = 180


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    write_tiny_model(folder / "model")
    rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"{2 * n}"} for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def open_client(tmp_path):
    roots = []

    def make(root=None, **options):
        roots.append(root or tmp_path / "runs")
        return Client(LocalBackend(Options(root=roots[-1], **options)), ledger=f"sqlite:///{tmp_path}/ledger.db")

    yield make
    for root in roots:
        kill_all(root)


def spec(base, *, local=None, **changes):
    document = {
        "name": "tiny", "model": str(base / "model"), "data": {"train": str(base / "rows.jsonl")},
        "overrides": {"local": {"device": "cpu", "threads": 1, **(local or {})}},
    }  # fmt: skip
    return JobSpec.model_validate({**document, **changes})


LONG = {"hyperparameters": {"epochs": 10_000, "batch_size": 4}}


def test_paused_resumed_cancelled_and_continued(base, open_client):
    client = open_client()
    job = client.submit(spec(base, **LONG))
    wait_until(lambda: len(job.metrics()) > 3, PATIENCE, "the first steps")
    job.pause()
    wait_until(lambda: job.state.value == "paused", PATIENCE)
    made = len(job.metrics())
    job.resume()
    wait_until(lambda: len(job.metrics()) > made + 3, PATIENCE, "more steps")
    job.cancel()
    wait_until(lambda: job.state.value == "cancelled", PATIENCE)
    with pytest.raises(InvalidRequest, match="has no model") as refused:
        job.model()
    assert "resume" in refused.value.hint
    last = job.checkpoints()[-1]
    child = job.resume()
    first = wait_until(child.metrics, PATIENCE)[0]
    assert first.step == last.step + 1
    child.cancel()


def test_a_time_limit_leaves_a_model_that_answers(base, open_client, capfd, tmp_path):
    client = open_client()
    data = {"train": str(base / "rows.jsonl"), "validation": 0.2}
    job = client.submit(spec(base, limits={"max_time": 2}, data=data, **LONG))
    wait_until(lambda: job.state.is_terminal, PATIENCE)
    snapshot = job.snapshot()
    assert snapshot.state.value == "expired"
    answers = list(job.generate(["What is 1 plus 1?"], GenerateOptions(max_tokens=4)))
    assert len(answers) == 1
    job.export(tmp_path / "merged", merged=True)
    assert capfd.readouterr() == ("", "")  # a library draws nothing on anybody's terminal


@pytest.mark.soak
def test_a_job_stops_below_its_cost_limit_with_a_model_that_answers(base, open_client):
    """The limit is less than a third of what the job needs. The price is one USD per second."""
    client = open_client(usd_per_cpu_hour=3600)
    limits = {"limits": {"max_cost_usd": 60}, "checkpoints": {"every": 200}}
    with pytest.raises(JobExpired):
        client.submit(spec(base, **limits, **LONG)).wait(timeout=PATIENCE)
    (stopped,) = client.costs()
    assert 0 < stopped.actual.usd <= 60
    job = client.attach(stopped.attempt.ref)
    progress = job.snapshot().progress
    assert 0 < progress.step < progress.total_steps / 3
    assert job.checkpoints()
    assert len(list(job.generate(["What is 1 plus 1?"], GenerateOptions(max_tokens=4)))) == 1


def test_two_processes_equal_one_with_the_doubled_batch(base, open_client):
    """One process computes the batch in two parts, the group in one part each; both have the same gradient."""
    client = open_client()
    hyper = {"max_steps": 5, "batch_size": 8, "adam_epsilon": 1e-4, "precision": "fp32"}
    parts = {**hyper, "gradient_accumulation_steps": 2}
    alone = client.submit(spec(base, hyperparameters=parts))
    together = client.submit(spec(base, distributed={"processes": 2}, hyperparameters=hyper))
    alone.wait(timeout=PATIENCE)
    together.wait(timeout=PATIENCE)
    losses = [[metric.values["loss"] for metric in job.metrics()] for job in (alone, together)]
    assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-6)
    processes = [event.data["processes"] for event in together.events() if "processes" in event.data]
    assert processes == [2]
    ours, theirs = (load_file(run_of(job.ref).model / "adapter_model.safetensors") for job in (alone, together))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-4, atol=1e-7)


@pytest.mark.soak
def test_a_lost_process_is_started_again_and_a_torn_checkpoint_skipped(base, open_client):
    """The newest checkpoint is truncated, as by a crash: the group continues from the one before it."""
    client = open_client()
    hyper = {"max_steps": 60, "batch_size": 4, "precision": "fp32", "adam_epsilon": 1e-4}
    wanted = {"distributed": {"processes": 2}, "hyperparameters": hyper, "checkpoints": {"every": 5, "keep": 50}}
    job = client.submit(spec(base, local={"max_restarts": 2}, **wanted))
    run = run_of(job.ref)
    wait_until((run.checkpoints / "step-00000010" / "checkpoint.json").exists, PATIENCE, "checkpoints")
    group = [one for one in psutil.process_iter() if {str(run.path), "cloudtune_trainer"} <= set(words_of(one))]
    for process in group:
        process.kill()
    newest = max(run.checkpoints.glob("step-*/checkpoint.json")).parent
    (newest / "trainer.safetensors").write_bytes(b"torn")
    job.wait(timeout=PATIENCE)
    said = [event.message for event in job.events()]
    assert any(f"{newest.name} is incomplete or damaged, and is skipped" in message for message in said)
    assert any("restart 1 of 2 from the newest complete checkpoint" in message for message in said)
    unbroken = client.submit(spec(base, **wanted))
    unbroken.wait(timeout=PATIENCE)
    losses = [{metric.step: metric.values["loss"] for metric in one.metrics()} for one in (job, unbroken)]
    assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-6)


def words_of(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_another_interpreter_needs_no_cloudtune(base, open_client):
    """The trainer's folder is all that another interpreter is shown."""
    other = Path(sys.executable).with_name("python3")
    client = open_client(python=other)
    job = client.submit(spec(base, hyperparameters={"max_steps": 2}))
    job.wait(timeout=PATIENCE)
    assert read_json(run_of(job.ref).job)["python"] == str(other)


def test_files_that_may_grow_no_more_are_disk_full(base, open_client, tmp_path):
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -f 40\nexec "{sys.executable}" "$@"\n')
    limited.chmod(0o755)
    client = open_client(python=limited)
    job = client.submit(spec(base, hyperparameters={"max_steps": 2}))
    with pytest.raises(JobFailed):
        job.wait(timeout=PATIENCE)
    assert job.snapshot().problem.code == "disk_full"


def test_generate_refuses_bad_options_before_anything_is_loaded(base, open_client):
    backend = open_client().backend()
    gone = TunedModel(id="x", base="b", backend="local", scope="s", uri="/nowhere")
    with pytest.raises(InputError, match=r"(?s)max_tokens.*temperature.*top_p"):
        backend.generate(gone, ["?"], GenerateOptions(max_tokens=0, temperature=-1, top_p=0))
    with pytest.raises(LookupError, match="no longer exists"):
        backend.generate(gone, ["?"])
    with pytest.raises(LookupError, match="no longer exists"):
        backend.export(gone, Path("/nowhere/else"))
