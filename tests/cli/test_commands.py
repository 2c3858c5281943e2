"""The whole set of commands over the scripted vendor: what each prints, where, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import jsonschema
import pytest
from click.testing import CliRunner

from cloudtune.cli.main import COMMANDS, EPILOG, OTHER_WORDS, cli
from cloudtune.errors import CloudtuneError
from cloudtune.methods import METHODS
from cloudtune.state import JobRef
from cloudtune.testing import Script, faults

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

JOB_KEYS = {"schema_version", "ref", "state", "native_state", "backend"}


# -- the way of a job ----------------------------------------------------------------------------------------------


def test_run_plans_submits_and_watches(desk: Desk) -> None:
    done = desk.run("run", "job.yaml", "--yes")
    assert done.code == 0, done.err
    ref = JobRef.parse(done.out)
    assert done.out.strip() == str(ref)  # stdout holds the reference and nothing else
    assert ref.backend == "scripted"
    for words in ("Plan for job on scripted", "train  20 rows", "] create the job: done", "succeeded; tuned model: ",
                  "Cost: unknown", f"cloudtune generate {ref}"):  # fmt: skip
        assert words in done.err
    assert len(desk.vendor.jobs()) == 1


def test_the_same_run_again_is_the_same_job(desk: Desk) -> None:
    first = desk.run("run", "job.yaml", "--yes")
    second = desk.run("run", "job.yaml", "--yes")
    assert second.out == first.out
    assert "already submitted" in second.err
    assert len(desk.vendor.jobs()) == 1
    third = desk.run("run", "job.yaml", "--yes", "--again")
    assert third.out != first.out
    assert len(desk.vendor.jobs()) == 2


def test_a_job_from_submit_to_result(slow: Desk) -> None:
    ref = slow.submit()
    shown = slow.run("show", ref)
    assert "state    running" in shown.out or "state    preparing" in shown.out
    assert f"cloudtune watch {ref}" in shown.err
    assert slow.run("watch", ref, "--timeout", "0.2s").code == 5
    assert "paused" in slow.run("pause", ref).err
    assert json.loads(slow.run("show", ref, "--json").out)["state"] == "paused"
    assert slow.run("resume", ref).out.strip() == ref
    slow.finish(ref)
    watched = slow.run("watch", ref)
    assert watched.code == 0
    assert "tuned model: " in watched.err
    assert "the job was created" in slow.run("logs", ref).out
    assert "best" in slow.run("checkpoints", ref).out
    assert slow.run("delete", ref, "--yes").code == 0
    assert slow.run("show", ref).code == 2


def test_a_job_is_found_by_id_and_by_its_beginning(desk: Desk) -> None:
    ref = desk.submit()
    job = ref.rpartition(":")[2]
    for name in (ref, job, job[:-1], "job"):
        assert desk.run("show", name, "--json").json["ref"] == ref
    unknown = desk.run("show", "nothing-like-it")
    assert unknown.code == 2
    assert "cloudtune jobs" in unknown.err


@pytest.mark.parametrize("command", ["show", "cancel", "delete", "resume"])
def test_an_empty_word_names_no_job(slow: Desk, command: str) -> None:
    ref = slow.submit()
    words = ("--yes",) if command == "delete" else ()
    for empty in ("", " "):
        assert slow.run(command, empty, *words).code == 2
    assert slow.run("show", ref, "--json").json["state"] in ("preparing", "running")


def test_alone_it_shows_its_help(desk: Desk) -> None:
    done = desk.run()
    assert done.err.startswith("Usage: ")
    assert "Exit codes:" in done.err
    assert "error:" not in done.err


# -- JSON ----------------------------------------------------------------------------------------------------------


def test_every_answer_under_json_is_one_object(slow: Desk) -> None:
    ref = slow.submit()
    commands: dict[str, tuple[str, ...]] = {
        "plan": ("job.yaml",), "submit": ("job.yaml",), "show": (ref,), "pause": (ref,), "resume": (ref,),
        "cancel": (ref,), "jobs": (), "logs": (ref,), "metrics": (ref,), "checkpoints": (ref,), "backends": (),
        "methods": (),
        "config": ("show",), "doctor": (), "schema": (), "init": ("new.yaml", "--model", "m", "--train", "rows.jsonl"),
    }  # fmt: skip
    for name, words in commands.items():
        done = slow.run(name, *words, "--json")
        assert done.code == 0, (name, done.err)
        document = json.loads(done.out)
        assert isinstance(document, dict), name
        if name != "schema":
            assert document["schema_version"] == 1, name
        if name in ("submit", "show", "pause", "resume", "cancel"):
            assert document.keys() >= JOB_KEYS, name
            assert (document["ref"], document["backend"]) == (ref, "scripted")


def test_run_and_watch_end_in_the_job_and_its_model(desk: Desk) -> None:
    ran = desk.run("run", "job.yaml", "--yes", "--json").json
    assert ran.keys() >= JOB_KEYS
    assert ran["state"] == "succeeded"
    assert ran["native_state"] == "Completed"
    assert ran["result"]["base"] == "base-1"
    assert desk.run("watch", ran["ref"], "--json").json["model_id"] == ran["model_id"]


def test_jobs_generate_and_metrics_have_their_lists(desk: Desk) -> None:
    ref = desk.run("run", "job.yaml", "--yes").out.strip()
    (job,) = desk.run("jobs", "--json").json["jobs"]
    assert (job["ref"], job["state"]) == (ref, "succeeded")
    one = desk.run("generate", ref, "hello", "--json").json
    assert one["text"]
    assert one["text"] == one["answers"][0]["text"]
    two = desk.run("generate", ref, "hello", "bye", "--base", "--json").json
    assert [answer["prompt"] for answer in two["answers"]] == ["hello", "bye"]
    assert all(answer["base"]["model"] == "base-1" for answer in two["answers"])
    metrics = desk.run("metrics", ref, "--json").json["metrics"]
    assert [metric["step"] for metric in metrics] == sorted(metric["step"] for metric in metrics)
    assert {metric["split"] for metric in metrics} >= {"train"}


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (("run", "no.yaml", "--yes"), "SpecError", 2),
        (("run", "job.yaml"), "PolicyRefused", 7),
        (("show", "nothing"), "JobNotFound", 2),
        (("show",), "MissingParameter", 2),
        (("show", "x", "--nope"), "NoSuchOption", 2),
        (("nope",), "UsageError", 2),
        (("plan", "job.yaml", "--backend", "scriptd"), "UnknownBackend", 2),
        (("plan", "job.yaml", "--profile", "x"), "ConfigError", 2),
        (("plan", "job.yaml", "--set", "hyperparameters.packing=yes"), "UnsupportedError", 2),
        (("plan", "job.yaml", "--set", "data.train=no.jsonl"), "DataError", 2),
        (("jobs", "--ledger", "mysql://host/db"), "LedgerError", 1),
        (("jobs", "--state", "done"), "BadParameter", 2),
    ],
)
def test_errors_under_json_are_one_object_too(desk: Desk, words: tuple[str, ...], kind: str, code: int) -> None:
    done = desk.run(*words, "--json")
    error = done.json["error"]
    assert (error["type"], error["exit_code"], done.code) == (kind, code, code)
    assert error["message"]
    assert done.json["schema_version"] == 1
    plain = desk.run(*words)
    assert (plain.code, plain.out) == (code, "")
    assert "Traceback" not in plain.err
    assert plain.err.strip()


def test_a_word_that_only_looks_like_the_option_is_no_option(desk: Desk) -> None:
    done = desk.run("show", "--", "--json")
    assert (done.code, done.out) == (2, "")
    assert "'--json'" in done.err


def test_a_problem_under_json_has_all_its_parts(desk: Desk) -> None:
    Path("bad.yaml").write_text("model: x\ndata: {train: rows.jsonl}\nepochs: 3\nseed: -1\n")
    problems = desk.run("plan", "bad.yaml", "--json").json["error"]["problems"]
    assert [(problem["file"], problem["line"], problem["field"]) for problem in problems] == [
        ("bad.yaml", 3, "epochs"), ("bad.yaml", 4, "seed"),
    ]  # fmt: skip
    assert problems[0]["fix"] == "did you mean hyperparameters.epochs?"
    text = desk.run("plan", "bad.yaml").err.splitlines()
    assert text == [
        "error: bad.yaml:3: epochs: unknown key (did you mean hyperparameters.epochs?)",
        "error: bad.yaml:4: seed: must be at least 0, not -1",
    ]


# -- the six ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "value", "code", "words"),
    [
        ("fail", "the cable was cut", 3, "the cable was cut"),
        ("cancel", "", 4, "was cancelled"),
        ("expire", "", 8, "reached a limit"),
    ],
)
def test_each_end_has_its_exit_code(slow: Desk, act: str, value: str, code: int, words: str) -> None:
    ref = slow.submit()
    slow.vendor.act(ref.rpartition(":")[2], act, value)
    for command in (("watch", ref), ("run", "job.yaml", "--yes"), ("logs", ref, "--follow")):
        done = slow.run(*command)
        assert done.code == code, (command, done.err)
        assert words in done.err
    assert "--resume" in slow.run("run", "job.yaml", "--yes").err  # how to go on is said
    document = slow.run("watch", ref, "--json").json
    assert document["error"]["exit_code"] == code
    assert document["job"].keys() >= JOB_KEYS - {"schema_version"}


def test_waiting_too_long_is_five_and_the_job_goes_on(slow: Desk) -> None:
    done = slow.run("run", "job.yaml", "--yes", "--timeout", "0.3s")
    assert done.code == 5
    assert f"cloudtune watch {done.out.strip()}" in done.err
    assert len(slow.vendor.jobs(alive=True)) == 1


def test_a_job_that_is_too_old_is_cancelled_and_eight(slow: Desk) -> None:
    done = slow.run("run", "job.yaml", "--yes", "--cancel-after", "0.2s")
    assert done.code == 8, done.err
    assert "has run for more than" in done.err
    assert slow.vendor.jobs(alive=True) == []


def test_a_vendor_that_is_silent_is_six_and_the_job_may_go_on(slow: Desk) -> None:
    ref = slow.submit()
    slow.vendor.fail("get_job", faults.reset(times=faults.FOREVER))
    done = slow.run("watch", ref, "--lost-after", "0.5s")
    assert done.code == 6
    assert "no response" in done.err
    assert f"cloudtune watch {ref}" in done.err
    document = slow.run("watch", ref, "--lost-after", "0.5s", "--json").json
    assert (document["error"]["type"], document["job"]["ref"]) == ("LostContact", ref)
    slow.vendor.heal()
    assert slow.run("show", ref).code == 0


def test_a_stall_is_said(slow: Desk) -> None:
    slow.vendor.follow(Script(queue_s=0.0, prepare_s=0.0, step_s=1e6))
    ref = slow.submit()
    done = slow.run("watch", ref, "--stall-after", "0.3s", "--timeout", "1.5s")
    assert done.code == 5
    assert done.err.count("note: stalled: ") == 1


def test_a_failed_job_can_be_run_again_or_resumed(slow: Desk) -> None:
    ref = slow.submit()
    slow.vendor.act(ref.rpartition(":")[2], "fail", "x")
    resumed = slow.run("resume", ref)
    assert resumed.code == 0, resumed.err
    assert resumed.out.strip() != ref
    assert slow.run("show", resumed.out.strip(), "--json").json["parent"] == ref


# -- asking --------------------------------------------------------------------------------------------------------


def test_nobody_is_asked_where_there_is_no_terminal(desk: Desk) -> None:
    done = desk.run("run", "job.yaml", input="y\n")
    assert done.code == 7
    assert "pass --yes" in done.err
    assert desk.vendor.jobs() == []
    assert desk.vendor.files() == []
    ref = desk.submit()
    desk.finish(ref)
    assert desk.run("delete", ref).code == 7
    assert desk.run("show", ref).code == 0


# -- the plan ------------------------------------------------------------------------------------------------------


def test_plan_shows_all_and_does_nothing(desk: Desk) -> None:
    done = desk.run("plan", "job.yaml")
    assert done.code == 0
    assert "hyperparameters.epochs" in done.out
    assert "spec" in done.out
    assert "default of scripted" not in done.out
    assert "defaults of scripted (--all lists them)" in done.out
    assert "default of scripted" in desk.run("plan", "job.yaml", "--all").out
    assert "create_job" not in done.out
    assert "create_job" in desk.run("plan", "job.yaml", "--requests").out
    assert desk.vendor.files() == []
    # Planning reads the ledger, and reading makes none; what was found out about the rows is kept.
    assert [entry.name for entry in desk.home.iterdir()] == ["verdicts"]


def test_the_plan_is_what_is_sent(desk: Desk) -> None:
    planned = desk.run("plan", "job.yaml", "--json").json
    desk.submit()
    (sent,) = desk.vendor.received("create_job")
    (create,) = [step for step in planned["steps"] if step["id"] == "create"]
    body = create["request"]["body"]
    assert {key: value for key, value in body.items() if "$step" not in str(value)}.items() <= sent.items()


def test_what_is_dropped_stands_in_the_plan(desk: Desk) -> None:
    words = ("plan", "job.yaml", "--set", "hyperparameters.packing=yes")
    refused = desk.run(*words)
    assert refused.code == 2
    assert "--set: hyperparameters.packing: scripted does not support it: the vendor always packs" in refused.err
    dropped = desk.run(*words, "--unsupported", "drop")
    assert dropped.code == 0
    assert "hyperparameters.packing = yes: the vendor always packs" in dropped.out


def test_an_unsupported_field_is_told_with_its_line(desk: Desk) -> None:
    Path("job.yaml").write_text("model: x\ndata: {train: rows.jsonl}\nhyperparameters:\n  packing: true\n")
    assert "error: job.yaml:4: hyperparameters.packing: " in desk.run("plan", "job.yaml").err


def test_a_warning_is_told_and_does_not_stop(desk: Desk) -> None:
    words = ("job.yaml", "--set", "hyperparameters.learning_rate=0.05")
    assert "0.05 is too large (try 1e-4)" in desk.run("plan", *words).out
    submitted = desk.run("submit", *words)
    assert submitted.code == 0
    assert "warning: " in submitted.err


def test_a_spec_from_the_standard_input(desk: Desk) -> None:
    done = desk.run("submit", "-", input=Path("job.yaml").read_text())
    assert done.code == 0, done.err
    bad = desk.run("plan", "-", input="model: x\nseed: -1\n")
    assert "<stdin>:2: seed" in bad.err


# -- where ---------------------------------------------------------------------------------------------------------


def test_flag_wins_over_environment_wins_over_spec_wins_over_project(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(*words: str) -> str:
        return str(desk.run("plan", "job.yaml", "--json", *words).json.get("error", {}).get("message", "planned"))

    assert planned() == "planned"
    Path("job.yaml").write_text(Path("job.yaml").read_text() + "backend: from-spec\n")
    assert "'from-spec'" in planned()
    monkeypatch.setenv("CLOUDTUNE_BACKEND", "from-env")
    assert "'from-env'" in planned()
    assert "'from-flag'" in planned("--backend", "from-flag")
    assert planned("--backend", "scripted") == "planned"


def test_a_ledger_elsewhere_has_its_own_jobs(desk: Desk) -> None:
    elsewhere = ("--ledger", f"sqlite:///{desk.folder}/other.db")
    desk.submit(*elsewhere)
    assert len(desk.run("jobs", "--json", *elsewhere).json["jobs"]) == 1
    assert desk.run("jobs", "--json").json["jobs"] == []


def test_jobs_by_state_limit_and_quiet(slow: Desk) -> None:
    refs = [slow.submit("--set", f"seed={seed}") for seed in range(3)]
    slow.finish(refs[0])
    slow.run("jobs")
    assert slow.run("jobs", "-q").out.split() == refs[::-1]
    assert slow.run("jobs", "-q", "--limit", "1").out.split() == [refs[2]]
    assert slow.run("jobs", "-q", "--state", "succeeded").out.split() == [refs[0]]
    table = slow.run("jobs").out.splitlines()
    assert table[0].split() == ["ID", "STATE", "STEP", "BACKEND", "MODEL", "CREATED", "DETAIL", "REF"]
    assert len(table) == 4


def test_no_jobs_yet_is_no_error_and_makes_no_ledger(desk: Desk) -> None:
    done = desk.run("jobs")
    assert (done.code, done.out) == (0, "")
    assert "cloudtune run" in done.err
    assert not desk.home.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("show",), ("watch",), ("cancel",), ("delete", "--yes"), ("resume",), ("logs",), ("export", "x", "--merged"),
        ("generate", "x"), ("undeploy", "--yes"), ("run", "--backend"), ("plan", "job.yaml", "--set"), ("import",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_argument_that_is_not_utf8_is_refused(desk: Desk, words: tuple[str, ...]) -> None:
    done = desk.run(*words, "caf\udce9=1")
    assert done.code == 2
    assert "internal error" not in done.err


def test_a_prompt_that_is_not_utf8_is_named(desk: Desk) -> None:
    done = desk.run("generate", "x", "good", "caf\udce9", "--temperature", "nan")
    assert done.code == 2
    assert "prompt 2 is not UTF-8 text" in done.err
    assert "temperature: must be 0 or from" in done.err


def test_a_deleted_working_folder_is_named(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = desk.run("jobs")
    assert (done.code, done.err) == (
        2,
        "error: the current folder no longer exists\nchange to a folder that exists: cd ~\n",
    )


# -- results -------------------------------------------------------------------------------------------------------


def test_answers_go_to_stdout(desk: Desk) -> None:
    ref = desk.run("run", "job.yaml", "--yes").out.strip()
    plain = desk.run("generate", ref, "hello")
    answer = desk.run("generate", ref, "hello", "--json").json["text"]
    assert plain.out == f"{answer}\n"
    compared = desk.run("generate", ref, "hello", "--base").out.splitlines()
    assert compared[0] == "> hello"
    assert compared[1].startswith("base:  ")
    assert compared[2] == f"tuned: {answer}"


def test_prompts_from_files(desk: Desk) -> None:
    ref = desk.run("run", "job.yaml", "--yes").out.strip()
    rows: list[Any] = [
        {"prompt": "one"}, {"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "no"}]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "three"}]}, "four",
    ]  # fmt: skip
    Path("p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("p.txt").write_text("uno\n\ndos\n")

    def asked(*words: str, input: str | None = None) -> list[str]:  # noqa: A002
        done = desk.run("generate", ref, *words, "--json", input=input)
        prompts = [answer["prompt"] for answer in done.json["answers"]]
        return [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]

    assert asked("--file", "p.jsonl") == ["one", "two", "three", "four"]
    assert asked("zero", "--file", "p.txt") == ["zero", "uno", "dos"]
    assert asked("--file", "-", input="a\nb\n") == ["a", "b"]
    Path("bad.jsonl").write_text('{"prompt": "x"}\n{"text": 3}\nnot json\n')
    bad = desk.run("generate", ref, "--file", "bad.jsonl")
    assert bad.code == 2
    assert "bad.jsonl:2: this row has no prompt" in bad.err
    assert "bad.jsonl:3:" in bad.err
    assert desk.run("generate", ref).code == 2
    assert desk.run("generate", ref, "--file", "no.txt").code == 2


def test_export_is_refused_with_the_reason(desk: Desk) -> None:
    ref = desk.run("run", "job.yaml", "--yes").out.strip()
    done = desk.run("export", ref, "out")
    assert done.code == 2
    assert "the weights stay with the vendor" in done.err


def test_metrics_as_table_curve_and_png(desk: Desk) -> None:
    ref = desk.run("run", "job.yaml", "--yes").out.strip()
    table = desk.run("metrics", ref).out.splitlines()
    assert table[0].split()[:4] == ["STEP", "EPOCH", "SPLIT", "LOSS"]
    assert len(table) >= 11
    curve = desk.run("metrics", ref, "--plot").out
    assert any("⠀" < char <= "⣿" for char in curve)
    assert "● train" in curve
    drawn = desk.run("metrics", ref, "--png", "loss.png")
    assert drawn.code == 0, drawn.err
    assert Path("loss.png").read_bytes().startswith(b"\x89PNG")
    unknown = desk.run("metrics", ref, "--key", "lost")
    assert unknown.code == 2
    assert "known metrics: loss" in unknown.err
    assert desk.run("metrics", ref, "--png", "no/where.png").code == 2


def test_logs_go_on_from_a_cursor(desk: Desk) -> None:
    ref = desk.run("run", "job.yaml", "--yes").out.strip()
    events = desk.run("logs", ref, "--json").json["events"]
    assert len(events) > 2
    after = desk.run("logs", ref, "--json", "--after", events[1]["cursor"]).json["events"]
    assert after == events[2:]
    followed = desk.run("logs", ref, "--follow")
    assert followed.code == 0
    assert len(followed.out.splitlines()) == len(events)


# -- about the house -----------------------------------------------------------------------------------------------


def test_backends_say_what_they_can_and_why_not(desk: Desk) -> None:
    listed = desk.run("backends")
    assert "scripted" in listed.out
    assert "local" in listed.out
    one = desk.run("backends", "scripted").out
    assert "hyperparameters.packing" in one
    assert "the vendor always packs" in one
    document = desk.run("backends", "scripted", "--json").json["backends"][0]
    assert document["usable"]
    assert document["origin"] == "scripted"
    assert not set(document["supports"]) & set(document["reasons"])
    assert desk.run("backends", "scriptd").code == 2


def test_methods_are_listed_with_their_adapters_and_reasons(desk: Desk) -> None:
    found = desk.run("methods", "--backend", "local", "--json").json["methods"]
    assert tuple(found) == tuple(METHODS)
    for name, row in found.items():
        assert row["task"] == METHODS[name].task
        assert row["trains"] is (row["reason"] is None)
        for adapter, cell in row["adapters"].items():
            assert cell["trains"] is (cell["reason"] is None), (name, adapter)
            assert not cell["layers"] or cell["trains"], (name, adapter)
    assert found["sft"]["adapters"]["lora"] == {"trains": True, "layers": True, "reason": None}
    assert found["sft"]["adapters"]["prompt"] == {"trains": True, "layers": False, "reason": None}
    shown = [line.split(maxsplit=1) for line in desk.run("methods").out.splitlines() if line]  # of the scripted vendor
    assert [line[0] for line in shown[:3]] == ["METHOD", "sft", "cpt"]
    assert shown[1][1].split() == ["causal_lm", "yes", "yes"]
    assert ["dpo", "the scripted vendor knows sft and cpt only"] in shown
    assert ["qlora", "the scripted vendor trains full or lora only"] in shown
    lines = desk.run("methods", "--backend", "local").out.splitlines()
    (line,) = [line for line in lines if line.startswith("sft ")]
    assert line.split()[:4] == ["sft", "causal_lm", "layers", "layers"]


def test_a_back_end_that_cannot_be_used_is_listed_with_its_reason(desk: Desk) -> None:
    text = desk.config.read_text() + 'needs = "no_such_module"\n'
    desk.configure(text)
    found = {one["name"]: one for one in desk.run("backends", "--json").json["backends"]}
    assert not found["scripted"]["usable"]
    assert "no_such_module" in found["scripted"]["problem"]
    assert "pip install no_such_module" in found["scripted"]["hint"]
    checked = desk.run("doctor")
    assert checked.code == 2
    assert "FAILED" in checked.out
    assert "pip install no_such_module" in checked.out
    desk.configure(text.replace("needs", "neds"))
    assert "did you mean 'needs'?" in desk.run("plan", "job.yaml").err


def test_the_schema_accepts_what_load_accepts(desk: Desk) -> None:
    schema = json.loads(desk.run("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    good: list[Any] = [
        {"model": "x", "data": {"train": "a"}},
        {"model": {"local": "x"}, "data": {"train": ["a"], "validation": 0.1}, "method": "sft", "adapter": "lora"},
        {"model": "x", "data": {"train": {"path": "a"}}, "limits": {"max_time": "2h"}, "validation": {"every": 5}},
    ]
    bad: list[Any] = [{"model": "x"}, {"model": "x", "data": {"train": "a"}, "epochs": 3}, {"model": 3, "data": {}}]
    for document in good:
        desk.run("plan", "-", input=json.dumps(document))
        check.validate(document)
    for document in bad:
        with pytest.raises(jsonschema.ValidationError):
            check.validate(document)
        assert desk.run("plan", "-", input=json.dumps(document)).code == 2
    own = json.loads(desk.run("schema", "--backend", "scripted").out)
    jsonschema.Draft202012Validator.check_schema(own)
    assert "lane" in own["properties"]["overrides"]["properties"]["scripted"]["properties"]


def test_config_show_says_where_each_value_came_from(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__SCRIPTED__API_KEY", "hush-hush")
    monkeypatch.setenv("CLOUDTUNE_TYPO", "x")
    done = desk.run("config", "show")
    lines = {line.split()[0]: line for line in done.out.splitlines()}
    assert lines["backend"].endswith(f"{desk.folder}/cloudtune.toml:1")
    assert lines["ledger"].endswith("CLOUDTUNE_HOME")
    assert "********" in lines["backends.scripted.api_key"]
    assert "CLOUDTUNE_TYPO" in done.err
    assert "hush-hush" not in done.out + done.err


def test_doctor_says_which_way_rows_are_checked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "compiled row checker" in desk.run("doctor", "--offline").out
    monkeypatch.setattr("cloudtune.data.read.plain_blocks.compiled", lambda: None)
    assert "warning  data" in desk.run("doctor", "--offline").out


def test_doctor_prints_no_secret_and_finds_what_is_wrong(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.run("doctor").code == 0
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__SCRIPTED__API_KEY", "hush-hush")
    wrong = desk.run("doctor", "-v")  # the vendor does not know this key
    assert wrong.code == 2
    assert "back end scripted" in wrong.out
    assert "hush-hush" not in wrong.out + wrong.err
    assert desk.run("doctor", "--offline").code == 0
    Path("cloudtune.toml").write_text("backend = 3\n")
    assert "backend: must be a string" in desk.run("doctor").out


def test_init_writes_a_spec_that_plans(desk: Desk) -> None:
    done = desk.run("init", "new/../first.yaml", "--model", "base-1", "--train", "rows.jsonl", "--epochs", "2.5")
    assert done.code == 2  # that folder does not exist
    done = desk.run("init", "first.yaml", "--model", "base-1", "--train", "rows.jsonl", "--epochs", "2.5")
    assert (done.code, done.out) == (0, "first.yaml\n")
    planned = desk.run("plan", "first.yaml", "--json", "--set", "validation.every=").json
    assert planned["name"] == "first"
    assert planned["spec"]["hyperparameters"]["epochs"] == 2.5
    assert set(planned["data"]["splits"]) == {"train", "validation"}
    assert "#" in Path("first.yaml").read_text()


def test_init_refuses_and_says_why(desk: Desk) -> None:
    Path("there.yaml").write_text("precious")
    exists = desk.run("init", "there.yaml", "--model", "m", "--train", "rows.jsonl")
    assert exists.code == 2
    assert "--force" in exists.err
    assert Path("there.yaml").read_text() == "precious"
    missing = desk.run("init", "x.yaml")
    assert missing.code == 2
    assert missing.err.count("is missing") == 2
    assert not Path("x.yaml").exists()
    wrong = desk.run("init", "x.yaml", "--model", "m", "--train", "rows.jsonl", "--method", "sfft")
    assert wrong.code == 2
    assert "did you mean 'sft'?" in wrong.err
    assert sorted(path.name for path in desk.folder.glob("*x.yaml*")) == []
    assert desk.run("init", "x.json", "--model", "m", "--train", "rows.jsonl").code == 2
    assert desk.run("init", "there.yaml", "--model", "m", "--train", "rows.jsonl", "--force").code == 0


def test_init_writes_paths_as_its_folder_sees_them(desk: Desk) -> None:
    Path("specs").mkdir()
    Path("weights: a").mkdir()
    desk.run("init", "specs/j.yaml", "--model", "weights: a", "--train", "rows.jsonl", "--test", "0.2")
    spec = desk.run("plan", "specs/j.yaml", "--json", "--set", "data.test=", "--set", "validation=").json["spec"]
    assert spec["model"] == str(desk.folder / "weights: a")
    assert spec["data"]["train"]["path"] == str(desk.folder / "rows.jsonl")


# -- the commands themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    own = (command.help or "").split("\n\n")[0]
    assert own.split()[0].strip(",") == COMMANDS[name].split()[0].strip(",")  # the same verb, at greater length


def test_the_help_lists_every_exit_code() -> None:
    def codes(kind: type[CloudtuneError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(below) for below in kind.__subclasses__()))

    reported = {int(line.split()[0]) for line in EPILOG.splitlines() if line.strip()[:1].isdigit()}
    assert reported >= codes(CloudtuneError) | {0}
    assert reported == set(range(11))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("rnu",), "Did you mean run?"),
        (("--json", "jobs"), "--json must come after the command"),
        (("plan", "job.yaml", "--jsn"), "--json"),
        (("watch", "x", "--timeout", "soon"), "is not a duration; write 90s"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(desk: Desk, words: tuple[str, ...], answer: str) -> None:
    done = desk.run(*words)
    assert done.code == 2
    assert answer in done.err + done.out  # under --json on stdout


@pytest.mark.parametrize(("word", "known"), sorted(OTHER_WORDS.items()))
def test_words_of_other_tools_are_explained(desk: Desk, word: str, known: str) -> None:
    refused = desk.run(word)
    assert (refused.code, f"Did you mean {known}?" in refused.err) == (2, True)
    assert word not in COMMANDS
    assert desk.run(*known.split(), "--help").code == 0


def test_a_table_is_no_file_of_prompts(desk: Desk) -> None:
    (desk.folder / "rows.csv").write_text("question,answer\nWhy?,Because\n")
    refused = desk.run("generate", "job", "--file", "rows.csv")
    assert (refused.code, "cloudtune data convert rows.csv" in refused.err) == (2, True)
