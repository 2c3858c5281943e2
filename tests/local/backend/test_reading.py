"""What is read from a run folder: words to states, lines to events and metrics, and nothing that is not there."""

import pytest

from cloudtune.backend import Backend
from cloudtune.client import Client
from cloudtune.errors import BackendNotInstalled, InvalidRequest, JobNotFound, SpecError, UnsupportedError
from cloudtune.optional import BatchStatus, Exporter, Generator, Pausable
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobState, TunedModel
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer import folder
from cloudtune_trainer.folder import append_line, write_json
from cloudtune_trainer.submit.snapshots import STATES, to_state
from cloudtune_trainer.worker.run import Run


@pytest.fixture
def backend(root):
    return LocalBackend(Options(root=root))


@pytest.fixture
def run(root):
    run = Run(root / "one")
    run.control.mkdir(parents=True)
    write_json(run.spec, {"version": 1})
    write_json(run.status, {"state": "succeeded"})
    return run


@pytest.fixture
def ref(root):
    return JobRef("local", str(root), "one")


def test_the_protocols(backend):
    for protocol in (Backend, BatchStatus, Exporter, Generator, Pausable):
        assert isinstance(backend, protocol)


def test_every_word_of_the_trainer_has_a_state_and_ends_where_it_ends():
    assert set(STATES) == set(folder.STATES)
    assert {word for word, state in STATES.items() if state.is_terminal} == folder.FINAL_STATES
    assert to_state("levitating") is JobState.UNKNOWN


def test_a_folder_that_cloudtune_did_not_make_is_listed_too(backend, run, ref):
    """A spec.json and a status.json are enough: the trainer was run by hand, perhaps on another machine."""
    assert [snapshot.ref for snapshot in backend.list()] == [ref]
    assert backend.get(ref).state is JobState.SUCCEEDED
    assert backend.get(ref).created_at is None
    run.status.unlink()
    assert backend.get(ref).state is JobState.QUEUED


def test_a_damaged_run_spoils_no_list(backend, run, ref, root):
    write_json(Run(root / "one").job, {"number": 1, "name": "fine"})
    damaged = Run(root / "two")
    damaged.control.mkdir(parents=True)
    write_json(damaged.spec, {"version": 1})
    damaged.status.write_bytes(b"\xff{")
    damaged.job.write_text('{"number": 2')
    seen = {snapshot.ref.id: snapshot for snapshot in backend.list()}
    assert seen["one"].state is JobState.SUCCEEDED
    assert (seen["two"].state, seen["two"].native_state) == (JobState.UNKNOWN, "unreadable")
    assert "status.json is damaged" in seen["two"].detail


def test_a_clock_that_was_set_back_makes_no_negative_usage(backend, run, ref):
    times = {"started_at": "2026-11-29T12:00:00+00:00", "finished_at": "2026-11-29T11:00:00+00:00"}
    write_json(run.status, {"state": "succeeded", **times})
    assert backend.usage(backend.get(ref)).seconds == 0.0


def test_other_things_in_the_root_are_no_jobs(backend, run, root):
    (root / "notes.txt").write_text("x")
    (root / "empty").mkdir()
    (root / ".hidden").mkdir()
    assert len(list(backend.list())) == 1


def test_no_root_at_all(root):
    backend = LocalBackend(Options(root=root / "never"))
    assert list(backend.list()) == []
    with pytest.raises(JobNotFound):
        backend.get(JobRef("local", str(root / "never"), "one"))
    backend.delete(JobRef("local", str(root / "never"), "one"))
    assert not root.exists()


def test_torn_and_damaged_lines_are_passed_over_and_keep_their_numbers(backend, run, ref):
    for number in range(3):
        append_line(run.events, {"time": folder.now(), "type": "message", "level": "info", "message": str(number)})
    with run.events.open("a") as file:
        file.write('{"time": "torn')
    assert [event.cursor for event in backend.events(ref)] == ["1", "2", "3"]
    append_line(run.events, {"time": folder.now(), "type": "x", "level": "odd", "message": "after"})
    last = backend.events(ref, "3")
    assert [(event.cursor, event.level, event.message) for event in last] == [("5", "info", "after")]
    assert backend.events(ref, "5") == []
    assert backend.events(ref, "99") == []


def test_metrics_with_odd_lines(backend, run, ref):
    append_line(run.metrics, {"time": folder.now(), "step": 1, "epoch": 0.5, "split": "train", "values": {"loss": 2}})
    append_line(run.metrics, {"note": "no step"})
    append_line(run.metrics, {"step": 2, "split": "validation", "values": {"loss": 1.5, "odd": None}})
    assert [(m.cursor, m.step, m.split, m.values) for m in backend.metrics(ref)] == [
        ("1", 1, "train", {"loss": 2.0}),
        ("3", 2, "validation", {"loss": 1.5}),
    ]


def test_a_cursor_of_another_back_end(backend, run, ref):
    with pytest.raises(InvalidRequest, match="line number"):
        backend.events(ref, "ftevent-abc")


def test_deploying_is_refused_with_the_reason(backend, root):
    model = TunedModel(id="x", base="b", backend="local", scope="s")
    with pytest.raises(UnsupportedError, match="local models need no deployment"):
        Client(backend, ledger=str(root / "ledger.db")).plan_deploy(model)


def test_the_root(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "home"))
    assert LocalBackend().root == tmp_path / "home" / "runs"
    assert LocalBackend(Options(root=tmp_path / "a" / ".." / "b")).root == tmp_path / "b"
    monkeypatch.delenv("CLOUDTUNE_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert LocalBackend().root.name == "runs"


def spec(model, **changes):
    return JobSpec.model_validate({"model": str(model), "data": {"train": "rows.jsonl"}, **changes})


def test_resolve_does_not_run_the_interpreter(tmp_path, root):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {tmp_path / 'executed'}\n")
    python.chmod(0o755)
    with pytest.raises(SpecError, match="no such file or folder"):
        LocalBackend(Options(root=root, python=python)).resolve(spec("./nothing"))
    assert not (tmp_path / "executed").exists()


def test_resolve_names_what_is_missing(tmp_path, root, monkeypatch):
    import sys

    with monkeypatch.context() as patch:
        patch.setattr("cloudtune_trainer.submit.inference.missing_here", lambda: ["torch", "peft"])
        with pytest.raises(BackendNotInstalled, match="torch, peft, not installed") as refused:
            LocalBackend(Options(root=root)).resolve(spec("x"))
    assert f"{sys.executable} -m pip install" in refused.value.hint
    with pytest.raises(SpecError, match="cannot use"):
        LocalBackend(Options(root=root, python=tmp_path / "nothing")).resolve(spec("x"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SpecError, match="no such file or folder"):
        LocalBackend(Options(root=root)).resolve(spec("./nothing"))


def test_resolving_and_reading_import_no_torch(root):
    import subprocess
    import sys

    program = (
        "import sys; from cloudtune_local.backend import LocalBackend; from cloudtune_local.options import Options;"
        "from pathlib import Path; b = LocalBackend(Options(root=Path(sys.argv[1]))); list(b.list()); b.capabilities;"
        "import cloudtune_trainer.worker;"
        "heavy = {'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program, str(root)], check=True)


def test_the_worker_needs_only_the_standard_library():
    import subprocess
    import sys

    program = (
        "import sys; sys.path = [path for path in sys.path if 'site-packages' not in path] + [sys.argv[1]];"
        "import cloudtune_trainer.worker; others = {name.partition('.')[0] for name in sys.modules}"
        " - set(sys.stdlib_module_names) - {'cloudtune_local', 'cloudtune_trainer', '__main__', '__mp_main__'};"
        "assert not {name for name in others if not name.startswith(('_', 'sitecustomize'))}, others"
    )
    root = folder.__file__.rsplit("/cloudtune_trainer/", 1)[0]
    subprocess.run([sys.executable, "-S", "-c", program, root], check=True)
