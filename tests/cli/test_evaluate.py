"""``cloudtune evaluate`` and ``compare`` with a scripted vendor, whose answer is the prompt reversed and its model."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.conftest import SLOW, SPEC

from cloudtune.cli.evaluate import Progress
from cloudtune.client import Client
from cloudtune.errors import InputError
from cloudtune.evaluation.result import EvaluateOptions
from cloudtune.testing.faults import FOREVER, Fault

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

ROWS = [f"row {number} of the test" for number in range(40)]


@pytest.fixture
def job(desk: Desk) -> str:
    ref = desk.submit()
    desk.finish(ref)
    return ref


def write(name: str, rows: list[dict[str, object]]) -> str:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return name


def with_answers(suffix: str) -> str:
    return write("test.jsonl", [{"prompt": row, "completion": f"{row[::-1]}{suffix}"} for row in ROWS])


def model_of(desk: Desk, ref: str) -> str:
    return str(desk.run("generate", ref, "x", "--json").json["answers"][0]["model"])


def test_a_model_with_the_right_answers_helped(desk: Desk, job: str) -> None:
    data = with_answers(f" says {model_of(desk, job)}")
    done = desk.run("evaluate", job, "--data", data, "--metric", "exact_match", "--max-tokens", "200")
    assert done.code == 0, done.err
    assert "40 rows; in parentheses: 95% intervals" in done.out
    assert "+100.0 (+87" in done.out
    assert "Helped: exact_match of job against base model: +100.0 points" in done.out


def test_the_same_answers_as_the_base_give_no_evidence(desk: Desk, job: str) -> None:
    done = desk.run("evaluate", job, "--data", with_answers(" and more"), "--max-tokens", "8", "--json")
    (found,) = done.json["comparisons"]
    assert (found["verdict"], found["difference"], found["p_value"]) == ("no evidence", 0.0, 1.0)
    assert found["same_answers"] == len(ROWS)
    assert "40 rows show a difference of" in done.json["verdict"]
    assert done.json["metrics"] == ["chrf", "rouge_l", "token_f1", "exact_match"]


def test_no_model_is_asked_twice(desk: Desk, job: str) -> None:
    words = ("evaluate", job, "--data", with_answers(""), "--few-shot", "3", "--json")
    first = desk.run(*words).json
    calls = desk.vendor.calls("generate")
    assert calls == 3 * len(ROWS)
    desk.vendor.fail("generate", Fault(kind="throttle", times=FOREVER))
    assert desk.run(*words).json | {"made_at": ""} == first | {"made_at": ""}
    assert desk.vendor.calls("generate") == calls


def test_examples_come_before_the_prompt(desk: Desk, job: str) -> None:
    done = desk.run("evaluate", job, "--data", with_answers(""), "--few-shot", "3", "--json")
    assert [model["role"] for model in done.json["models"]] == ["tuned", "base", "few_shot"]
    assert len(done.json["comparisons"]) == 2


def test_labels_have_a_majority_baseline_and_a_confusion_matrix(desk: Desk, job: str) -> None:
    rows: list[dict[str, object]] = [{"prompt": row, "completion": "yes" if number % 4 else "no"}
                                     for number, row in enumerate(ROWS)]  # fmt: skip
    done = desk.run("evaluate", job, "--data", write("labels.jsonl", rows), "--json").json
    assert done["task"] == "labels"
    assert done["models"][-1]["name"] == "always 'yes'"
    assert done["models"][-1]["scores"]["accuracy"]["value"] == 0.75
    assert done["confusion"] == {"labels": ["no", "yes"], "counts": [[0, 0, 10], [0, 0, 30]]}
    assert done["comparisons"][-1]["verdict"] == "worse"


def test_training_rows_in_the_test_file_are_named(desk: Desk, job: str) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": "What is 3?", "completion": "It is 3."}, {"prompt": "what is  4", "completion": "it is 4"},
        {"prompt": "What is 5?", "completion": "Five."}, {"prompt": "What is 99?", "completion": "It is 99."},
    ]  # fmt: skip
    words = ("evaluate", job, "--data", write("seen.jsonl", rows))
    found = desk.run(*words, "--json").json["overlap"]
    assert [found[kind] for kind in ("equal", "similar", "same_prompt")] == [
        [{"file": "seen.jsonl", "line": line}] for line in (1, 2, 3)
    ]
    out = desk.run(*words).out
    assert "1 of 4 test rows is a training row: line 1" in out
    assert "4 independent rows are few" in out
    out = desk.run("evaluate", job, "--data", write("one.jsonl", rows[:1])).out
    assert "1 of 1 test row is a training row: line 1" in out
    assert "1 independent row is few" in out
    assert "1 row; in parentheses" in out
    assert "1 row cannot show any difference" in out


def test_many_labels_have_accuracy_only(desk: Desk, job: str) -> None:
    rows: list[dict[str, object]] = [{"text": f"text {number}", "label": number} for number in range(101)]
    found = desk.run("evaluate", job, "--data", write("many.jsonl", rows), "--json").json
    assert (found["task"], found["metrics"], found["confusion"]) == ("labels", ["accuracy"], None)
    assert any("101 labels are many" in note for note in found["notes"])
    found = desk.run("evaluate", job, "--data", write("fewer.jsonl", rows[:100]), "--json").json
    assert found["metrics"] == ["accuracy", "f1_macro"]
    assert len(found["confusion"]["labels"]) == 100


def test_the_training_file_as_test_file_is_named(desk: Desk, job: str) -> None:
    out = desk.run("evaluate", job, "--data", "rows.jsonl").out
    assert "20 of 20 test rows are training rows: lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..." in out
    assert "measure memory" in out


def test_the_validation_file_as_test_file_is_named(desk: Desk) -> None:
    rows: list[dict[str, object]] = [{"prompt": row, "completion": row[::-1]} for row in ROWS]
    data = write("held_out.jsonl", rows)
    ref = desk.submit("--set", f"data.validation={data}")
    desk.finish(ref)
    assert "the test rows are the validation data of the training" in desk.run("evaluate", ref, "--data", data).out


def test_labels_with_fractions_are_measured_as_numbers(desk: Desk, job: str) -> None:
    rows: list[dict[str, object]] = [{"text": row, "label": number / 4} for number, row in enumerate(ROWS)]
    done = desk.run("evaluate", job, "--data", write("ratings.jsonl", rows), "--json").json
    assert (done["task"], done["metrics"][1]) == ("numbers", "mean_absolute_error")


def test_rows_of_one_source_are_grouped(desk: Desk, job: str) -> None:
    rows: list[dict[str, object]] = [{"prompt": row, "completion": row[::-1], "document": number // 4}
                                     for number, row in enumerate(ROWS)]  # fmt: skip
    words = ("evaluate", job, "--data", write("grouped.jsonl", rows))
    assert "40 rows in 10 groups" in desk.run(*words, "--group", "document").out
    done = desk.run(*words, "--group", "page")
    assert done.code == 2
    assert "the row has no 'page'" in done.err


def test_jobs_are_compared_with_each_other(desk: Desk, job: str) -> None:
    other = desk.submit("--set", "name=other")
    desk.finish(other)
    data = with_answers(f" says {model_of(desk, job)}")
    done = desk.run("compare", "job", "other", "--data", data, "--metric", "exact_match", "--max-tokens", "200")
    assert "Helped: exact_match of job against other" in done.out
    assert not (desk.home / "evaluations").exists()  # only `evaluate` stores its result
    more = write("more.jsonl", [{"prompt": "one more", "completion": "row"}])
    words = ("evaluate", job, "--data", data, "--data", more, "--against", "other", "--no-baselines", "--json")
    against = desk.run(*words).json
    assert (against["data"], against["against"], against["from_spec"]) == ([data, more], [other], False)
    assert [model["name"] for model in against["models"]] == ["job", "other"]
    for words in (("compare", "job", "job"), ("evaluate", job, "--against", "other", "--against", "job")):
        done = desk.run(*words, "--data", data)
        assert done.code == 2
        assert f"named twice: {job}" in done.err
    assert desk.run("compare", "job", "--data", data).code == 2
    assert against["answers"][0].keys() == {"file", "line", "group", "prompt", "expected", "answers", "tokens"}
    assert against["answers"][0]["file"] == data


@pytest.mark.parametrize(("row", "message"), [
    ({"messages": [{"role": "user", "content": "hi"}]}, "does not end with an answer"),
    ({"prompt": "a", "completion": " "}, "the expected answer is empty"),
    ({"sentence1": "a", "sentence2": "b", "score": 0.5}, "no expected answer"),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, "does not end with an answer to a prompt"),
])  # fmt: skip
def test_rows_that_cannot_be_evaluated_are_listed(desk: Desk, job: str, row: dict[str, object], message: str) -> None:
    done = desk.run("evaluate", job, "--data", write("bad.jsonl", [row]))
    assert done.code == 2
    assert message in done.err
    assert "bad.jsonl:1" in done.err
    assert desk.vendor.calls("generate") == 0


def test_a_job_without_a_model_is_refused_before_any_question(desk: Desk, job: str) -> None:
    desk.vendor.follow(SLOW)
    other = desk.submit("--set", "name=other")
    done = desk.run("evaluate", job, "--data", with_answers(""), "--against", other)
    assert done.code != 0
    assert desk.vendor.calls("generate") == 0
    rows: list[dict[str, object]] = [{"tokens": ["a"], "tags": ["O"]}]
    done = desk.run("evaluate", job, "--data", write("tags.jsonl", rows))
    assert "only models that generate text" in done.err
    assert desk.vendor.calls("generate") == 0


@pytest.mark.parametrize("words", [("--metric", "perplexity"), ("--guard", "texts.jsonl")])
def test_perplexity_requires_probabilities(desk: Desk, job: str, words: tuple[str, ...]) -> None:
    write("texts.jsonl", [{"text": "only text"}])
    done = desk.run("evaluate", job, "--data", with_answers(""), *words)
    assert "perplexity requires the probability of texts, which scripted does not give" in done.err
    assert (done.code, desk.vendor.calls("generate")) == (2, 0)


def test_a_metric_that_does_not_fit_is_refused_first(desk: Desk, job: str) -> None:
    done = desk.run("evaluate", job, "--data", with_answers(""), "--metric", "accuracy")
    assert done.code == 2
    assert "accuracy is for labels, and the expected answers are text" in done.err
    assert desk.vendor.calls("generate") == 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_evaluations_ask_each_question_once(desk: Desk, job: str) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"row {n}", "completion": f"{n} wor"} for n in range(10_000)]
    words = ("evaluate", job, "--data", write("many.jsonl", rows), "--metric", "exact_match", "--json")
    kills = 0
    while kills < 20:
        before = desk.vendor.calls("generate")
        run = subprocess.Popen(desk.command(*words), cwd=desk.folder, env=desk.environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        while desk.vendor.calls("generate") < before + 600 and run.poll() is None:
            time.sleep(0.01)
        run.kill()
        kills += run.wait() != 0
    killed = desk.run(*words).json | {"made_at": ""}
    # The questions that were in flight when the process died may be asked again.
    assert 20_000 <= desk.vendor.calls("generate") <= 20_000 + 8 * kills
    (desk.home / "answers" / "answers.db").unlink()
    assert desk.run(*words).json | {"made_at": ""} == killed


def test_the_spec_asks_for_an_evaluation_after_the_job(desk: Desk) -> None:
    with_answers(" says base-1")
    more = "evaluation: {data: test.jsonl, metrics: exact_match, max_rows: 30, max_tokens: 200, guard: rows.jsonl}\n"
    (desk.folder / "job.yaml").write_text(SPEC + more)
    plan = desk.run("plan", "job.yaml", "--json").json["evaluation"]
    assert (plan["rows"], plan["guard_rows"], plan["answers"], plan["models"]) == (
        30, 20, 100, ["tuned model", "base model"]
    )  # fmt: skip
    alone = desk.run("plan", "job.yaml", "--set", "evaluation.baselines=false", "--json").json["evaluation"]
    assert (alone["answers"], alone["models"]) == (50, ["tuned model"])
    done = desk.run("run", "job.yaml", "--yes")
    assert done.code == 0, done.err
    assert "at most 100 answers of at most 200 tokens" in done.err
    assert "Worse: exact_match of job against base model" in done.out
    assert "What it forgot, on general rows" in done.out
    shown = desk.run("show", "job", "--json").json["evaluation"]
    assert (shown["rows"], shown["guard"]["rows"], "answers" in shown) == (30, 20, False)
    assert "Worse: exact_match of job against base model" in desk.run("show", "job").out
    calls = desk.vendor.calls("generate")
    assert desk.run("watch", "job", "--json").json["evaluation"]["verdict"] == shown["verdict"]
    again = desk.run("evaluate", "job", "--json").json
    assert (again["verdict"], again["from_spec"]) == (shown["verdict"], True)
    assert desk.vendor.calls("generate") == calls


def test_a_plan_counts_the_judge_and_names_the_limit(desk: Desk) -> None:
    with_answers("")
    Path("rubric.txt").write_text("It is polite.")
    more = "evaluation: {data: test.jsonl, judge: {model: scripted=base-1, rubric: rubric.txt}}\n"
    (desk.folder / "job.yaml").write_text(SPEC + more)
    out = desk.run("plan", "job.yaml").out
    assert "asks scripted=base-1 to judge: at most 80 questions" in out
    assert "estimated before the first one, and not limited: see max_cost_usd" in out
    limited = desk.run("plan", "job.yaml", "--set", "evaluation.max_cost_usd=2").out
    assert "asks nothing if this may cost more than 2 USD, or if the price is unknown" in limited


def test_options_beside_those_of_the_spec_are_refused(desk: Desk, job: str) -> None:
    with_answers("")
    for given in ({"options": EvaluateOptions(max_cost_usd=1.0)}, {"against": ["scripted=base-1"]}, {"guard": "x"}):
        with pytest.raises(InputError, match="without data, the spec decides about all options"):
            Client().evaluate(job, **given)


def test_progress_is_printed_by_count_and_by_time() -> None:
    said: list[str] = []
    now = iter([0.0, 1.0, 2.0, 5.5, 6.0, 7.0, 8.0])
    session: Any = SimpleNamespace(say=said.append)
    progress = Progress(session, lambda: next(now))
    for done in (0, 1, 2, 3, 50, 60):
        progress("judge", done, 60)
    assert said == [f"judge: {done} of 60 answers" for done in (0, 3, 50, 60)]


def test_a_failed_evaluation_leaves_the_job_succeeded(desk: Desk) -> None:
    with_answers("")
    (desk.folder / "job.yaml").write_text(f"{SPEC}evaluation: test.jsonl\n")
    desk.vendor.fail("generate", Fault(kind="forbidden", times=FOREVER))
    done = desk.run("run", "job.yaml", "--yes", "--json")
    assert done.code == 0, done.err
    assert (done.json["state"], done.json["evaluation"]) == ("succeeded", None)
    assert "the job has succeeded, but it is not evaluated" in done.err
    assert "cloudtune evaluate scripted:" in done.err
    done = desk.run("evaluate", "job", "--data", "test.jsonl")
    assert done.code != 0


def test_the_evaluation_of_a_spec_is_no_part_of_the_job(desk: Desk, job: str) -> None:
    with_answers("")
    (desk.folder / "job.yaml").write_text(f"{SPEC}evaluation: test.jsonl\n")
    assert desk.submit() == job


@pytest.mark.parametrize(("more", "message"), [
    ("evaluation: missing.jsonl\n", "missing.jsonl"),
    ("evaluation: {metrics: accuracy, data: test.jsonl}\n", "accuracy is for labels"),
    ("evaluation: {data: test.jsonl, judge: ./none}\n", "evaluation.judge.model: no job named '/"),
    ("evaluation: {data: test.jsonl, against: [none, ../m]}\n", "evaluation.against[0]: no job named 'none'"),
    ("evaluation: {data: test.jsonl, against: nothing=m}\n", "evaluation.against[0]"),
    ("evaluation: {few_shot: 2}\n", "set evaluation.data or data.test"),
    ("evaluation: {metrics: 'json_schema:none.json', data: test.jsonl}\n", "none.json: No such file"),
    ("evaluation: {metrics: 'none.py:f', data: test.jsonl}\n", "none.py:f: the file is missing"),
])  # fmt: skip
def test_a_wrong_evaluation_is_refused_before_the_job(desk: Desk, more: str, message: str) -> None:
    with_answers("")
    (desk.folder / "job.yaml").write_text(SPEC + more)
    done = desk.run("run", "job.yaml", "--yes")
    assert done.code == 2
    assert message in done.err
    assert desk.vendor.calls("create_job") == 0


def test_the_evaluation_of_a_deleted_job_is_deleted(desk: Desk, job: str) -> None:
    desk.run("evaluate", job, "--data", with_answers(""))
    (stored,) = (desk.home / "evaluations").iterdir()
    assert stored.stat().st_mode & 0o777 == 0o600
    stored.write_text("{")
    shown = desk.run("show", job)
    assert (shown.code, "is damaged" in shown.err) == (0, True)
    desk.run("evaluate", "scripted=base-1", "--data", "test.jsonl")
    calls = desk.vendor.calls("generate")
    desk.run("evaluate", job, "--data", "test.jsonl", "--judge", "scripted=base-1", "--max-tokens", "200")
    assert desk.vendor.calls("generate") == calls + 4 * len(ROWS)  # both models, and the judge in both orders
    answers = desk.home / "answers" / "answers.db"
    assert desk.run("delete", job, "--yes").code == 0
    assert not stored.exists()
    with closing(sqlite3.connect(answers)) as db:  # those of a model without a job remain
        left = db.execute("SELECT asked_for, count(*) FROM answers GROUP BY asked_for").fetchall()
    assert left == [("scripted=base-1", len(ROWS))]


def test_a_job_that_is_deleted_during_its_evaluation_leaves_nothing(desk: Desk, job: str) -> None:
    client, asked = Client(), []

    def progress(name: str, done: int, count: int) -> None:
        if done == 5 and not asked:
            asked.append(name)
            client.attach(job).delete()

    found = client.evaluate(job, with_answers(""), on_progress=progress)
    assert (found.rows, len(asked)) == (len(ROWS), 1)
    assert not list((desk.home / "evaluations").iterdir())
    with closing(sqlite3.connect(desk.home / "answers" / "answers.db")) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (0,)


def test_models_without_a_job_are_evaluated(desk: Desk, job: str) -> None:
    data = with_answers(" says base-1")
    words = ("--data", data, "--metric", "exact_match", "--max-tokens", "200", "--json")
    direct = desk.run("evaluate", "--backend", "scripted", "--model", "base-1", "--against", job, *words)
    assert direct.code == 0, direct.err
    assert [(one["name"], one["role"]) for one in direct.json["models"]] == [("base-1", "tuned"), ("job", "other")]
    assert direct.json["models"][0]["scores"]["exact_match"]["value"] == 1.0
    assert direct.json["overlap"]["checked"] is False
    assert desk.run("deploy", job, "--yes").code == 0
    (name,) = (one["id"] for one in desk.run("deployments", "--json").json["deployments"])
    deployed = desk.run("compare", f"scripted={name}", job, *words).json
    (found,) = deployed["comparisons"]
    assert found["same_answers"] == len(ROWS)
    for wrong in ((), (job, "--model", "base-1"), (job, "--backend", "scripted")):
        assert desk.run("evaluate", *wrong, "--data", data).code == 2
    for options in (("--seed", "1"), ("--kind", "chat")):
        done = desk.run("evaluate", job, *options)
        assert (done.code, "decides about all options" in done.err) == (2, True)


def test_near_duplicates_of_training_rows_are_listed(desk: Desk) -> None:
    text = "the quick brown fox jumps over the lazy dog near the old river bank today at noon with a cat"
    write("rows.jsonl", [{"prompt": f"{text} {number}", "completion": "yes"} for number in range(20)])
    ref = desk.submit()
    desk.finish(ref)
    rows: list[dict[str, object]] = [{"prompt": f"{text} tomorrow", "completion": "yes"},
                                     {"prompt": f"{text[:40]} but nothing else", "completion": "yes"}]  # fmt: skip
    words = ("evaluate", ref, "--data", write("near.jsonl", rows))
    assert desk.run(*words, "--json").json["overlap"]["near"] == [{"file": "near.jsonl", "line": 1}]
    assert "1 of 2 test rows shares most runs of three words with a training row: line 1" in desk.run(*words).out


def test_a_function_as_metric_must_be_confirmed(desk: Desk) -> None:
    Path("score.py").write_text("def right(answer, expected):\n    return answer == expected\n")
    with_answers(" says base-1")
    words = ("--data", "test.jsonl", "--metric", "score.py:right", "--max-tokens", "200")
    more = "evaluation: {data: test.jsonl, metrics: 'score.py:right', max_tokens: 200}\n"
    (desk.folder / "job.yaml").write_text(SPEC + more)
    done = desk.run("run", "job.yaml", "--yes")
    assert (done.code, "--trust-reward" in done.err, desk.vendor.calls("create_job")) == (7, True, 0)
    done = desk.run("run", "job.yaml", "--yes", "--trust-reward", "--json")
    assert done.json["evaluation"]["models"][1]["scores"][f"{desk.folder}/score.py:right"]["value"] == 1.0
    assert desk.run("evaluate", "job").code == 0  # confirmed when the job was submitted
    with Path("score.py").open("a") as file:
        file.write("print('changed')\n")
    assert desk.run("evaluate", "job").code == 7
    done = desk.run("evaluate", "job", *words)
    assert (done.code, "runs a Python function with your permissions" in done.err) == (7, True)
    assert desk.run("evaluate", "job", *words, "--trust-reward").code == 0


def test_a_judge_that_answers_nonsense_gives_no_rate(desk: Desk, job: str) -> None:
    Path("rubric.txt").write_text("It is polite.")
    words = ("evaluate", job, "--data", with_answers(""), "--max-tokens", "200", "--judge", "scripted=base-1")
    found = desk.run(*words, "--rubric", "rubric.txt", "--json").json["judged"]
    assert [(one["model"], one["rate"], one["unclear"]) for one in found["models"]] == [
        ("job", None, 40), ("base model", None, 40)
    ]  # fmt: skip
    assert len(found["unclear"]) == 80
    assert found["unclear"][0].keys() == {"model", "file", "line", "reason"}
    out = desk.run(*words).out  # compares the answers with those of the base model
    assert "Judge scripted=base-1: no answer of job is judged." in out
    assert "40 judgments are missing and in no rate, first test.jsonl:1: the judge answers" in out
    calls = desk.vendor.calls("generate")
    desk.run(*words)
    assert desk.vendor.calls("generate") == calls


def test_a_judge_is_checked_before_any_question(desk: Desk, job: str) -> None:
    words = ("evaluate", job, "--data", with_answers(""))
    for more, message in (
        (("--rubric", "rubric.txt"), "belong to --judge"),
        (("--judge", "scripted=base-1", "--rubric", "none.txt"), "none.txt: No such file"),
        (("--judge", "scripted=base-1", "--human-labels", "none.jsonl"), "none.jsonl: No such file"),
        (("--judge", "scripted=base-1", "--no-baselines"), "without a rubric, the judge compares two models"),
        (("--judge", "nothing"), "nothing"),
    ):
        done = desk.run(*words, *more)
        assert (done.code != 0, message in done.err) == (True, True), (more, done.err)
    assert desk.vendor.calls("generate") == 0


def test_the_judge_of_a_spec_reads_files_next_to_it(desk: Desk) -> None:
    with_answers("")
    (desk.folder / "rubric.txt").write_text("It is polite.")
    more = "evaluation: {data: test.jsonl, judge: {model: scripted=base-1, rubric: rubric.txt}}\n"
    (desk.folder / "job.yaml").write_text(SPEC + more)
    done = desk.run("run", "job.yaml", "--yes", "--json")
    assert done.code == 0, done.err
    assert done.json["evaluation"]["options"]["judge"]["rubric"] == str(desk.folder / "rubric.txt")
    assert (
        "Judge scripted=base-1"
        in desk.run("report", "job", "--format", "markdown", "-o", "r.md").out + Path("r.md").read_text()
    )
    (desk.folder / "rubric.txt").unlink()
    other = desk.run("plan", "job.yaml", "--set", "evaluation.max_rows=5")
    assert (other.code, "rubric.txt: No such file" in other.err) == (2, True)
