"""A text classifier through the local back end: checked rows, plan, training, labels with their probabilities."""

import json

import pytest
from tests.local.backend.submitting import kill_all

from cloudtune.client import Client
from cloudtune.errors import DataError, InvalidRequest, UnsupportedError
from cloudtune.methods import methods_of
from cloudtune.optional import GenerateOptions
from cloudtune.registry import backend_names, open_backend
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.tiny import write_tiny_model

pytestmark = [pytest.mark.timeout(400), pytest.mark.starts_trainer]
VERBS = {"up": ("rises", "gains"), "down": ("falls", "sinks")}


def rows(count, first=0):
    return [
        {"text": f"item {n} {VERBS[label][n // 2 % 2]} today", "label": label}
        for n in range(first, first + count)
        for label in (list(VERBS)[n % 2],)
    ]


@pytest.fixture
def client(tmp_path):
    root = tmp_path / "runs"
    yield Client(LocalBackend(Options(root=root)), ledger=f"sqlite:///{tmp_path}/ledger.db")
    kill_all(root)


@pytest.fixture
def spec(tmp_path):
    write_tiny_model(tmp_path / "model", vocab_texts=[row["text"] for row in rows(40)])

    def make(train=None, validation=None, **changes):
        data = {}
        for split, content in {"train": train or rows(40), "validation": validation or rows(6, first=100)}.items():
            path = tmp_path / f"{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
            data[split] = str(path)
        document = {
            "name": "verbs", "model": str(tmp_path / "model"), "method": "classification", "data": data,
            "hyperparameters": {"epochs": 4, "learning_rate": 5e-3},
            "overrides": {"local": {"device": "cpu", "threads": 1}},
        }  # fmt: skip
        return JobSpec.model_validate(document | changes)

    return make


def test_a_classifier_trains_and_answers_with_scores(client, spec):
    plan = client.plan(spec())
    settings = {one.field: one.value for one in plan.settings}
    assert settings["hyperparameters.packing"] is False
    assert plan.data.splits["train"].kind == "text_label"
    job = client.submit(spec())
    job.wait(timeout=300)
    measured = [metric.values for metric in job.metrics() if metric.split == "validation"]
    assert measured
    assert measured[-1].keys() == {"loss", "accuracy", "macro_f1"}
    assert max(values["macro_f1"] for values in measured) > 0.9
    found = list(job.generate(["item 7 gains today", "item 8 sinks"], GenerateOptions()))
    assert [answer.text for answer in found] == ["up", "down"]
    for answer in found:
        assert set(answer.scores) == {"up", "down"}
        assert sum(answer.scores.values()) == pytest.approx(1)
    with pytest.raises(InvalidRequest, match="is not trained for classification"):
        list(job.generate(["item 7"], GenerateOptions(base=True)))


@pytest.mark.parametrize(("changes", "code"), [
    ({"train": [{"text": f"t {n}", "label": "x"} for n in range(9)]}, "one_label"),
    ({"validation": [{"text": "t", "label": "sideways"}, {"text": "u", "label": "x"}]}, "unknown_label"),
    ({"train": [{"text": f"t {n}", "label": f"{n}"} for n in range(1100)]}, "too_many_labels"),
    ({"train": [{"text": "t", "label": " "}, {"text": "u", "label": "x"}]}, "blank"),
])  # fmt: skip
def test_labels_are_checked_before_anything_is_submitted(client, spec, changes, code):
    with pytest.raises(DataError) as refused:
        client.plan(spec(**changes))
    assert code in {problem.code for problem in refused.value.problems}
    assert not client.jobs()


@pytest.mark.parametrize(("label", "problem", "message"), [
    (0.5, None, "the label 0.5 is no class: a class is a text or a whole number"),
    (["up"], None, "is no class: a class is a text or a whole number"),
    ("up", "multi_label", "the label 'up' is no list of classes"),
    (["up", " "], "multi_label", "a class in the list is empty"), ([0, 1, 1], "multi_label", "lists a class twice"),
    ("up", "regression", "the label 'up' is no number"),
])  # fmt: skip
def test_labels_that_do_not_fit_the_problem_are_named(client, spec, label, problem, message):
    method = {"name": "classification"} | ({"problem": problem} if problem else {})
    with pytest.raises(DataError) as refused:
        client.plan(spec(train=[{"text": f"t {n}", "label": label} for n in range(4)], method=method))
    first = refused.value.problems[0]
    assert message in first.message
    assert (first.line, first.field) == (1, "label")


def test_every_problem_is_planned_with_its_settings(client, spec):
    numbers = [{"text": f"t {n}", "label": n / 2} for n in range(9)]
    method = {"name": "classification", "problem": "regression"}
    planned = client.plan(spec(train=numbers, validation=numbers, method=method))
    assert {one.field: one.value for one in planned.settings}["method.problem"] == "regression"
    lists = [{"text": f"t {n}", "label": [["a"], [], ["b", 3]][n % 3]} for n in range(9)]
    method = {"name": "classification", "problem": "multi_label"}
    client.plan(spec(train=lists, validation=lists, method=method))
    with pytest.raises(DataError, match="no training row has these labels of validation: c"):
        client.plan(spec(train=lists, validation=[{"text": "t", "label": ["a", "c"]}], method=method))
    weighted = {"name": "classification", "class_weights": {"up": 2.0}, "label_smoothing": 0.1}
    settings = {one.field: one.value for one in client.plan(spec(method=weighted)).settings}
    assert settings["method.class_weights"] == {"up": 2.0}
    assert settings["method.label_smoothing"] == 0.1
    for wrong in (weighted | {"problem": "regression"}, {"name": "sft", "problem": "regression"}):
        with pytest.raises(UnsupportedError) as refused:
            client.plan(spec(train=numbers, method=wrong))
        assert {problem.code for problem in refused.value.problems} == {"no_effect"}
    with pytest.raises(DataError, match="all rows have the label 3"):
        client.plan(spec(train=[{"text": f"t {n}", "label": 3} for n in range(4)], validation=numbers,
                         method={"name": "classification", "problem": "regression"}))  # fmt: skip


def test_equal_ratings_are_refused_when_planned(client, spec):
    rows = [{"prompt": f"{n}?", "completion": "yes", "label": True} for n in range(4)]
    with pytest.raises(DataError, match="all rows have the label true"):
        client.plan(spec(train=rows, validation=rows, method="kto"))
    mixed = [row | {"label": n % 2 == 0} for n, row in enumerate(rows)]
    planned = client.plan(spec(train=mixed, validation=rows, method="kto"))
    assert {one.field: one.value for one in planned.settings}["method.beta"] == 0.1


TRAINER_BACKENDS = ("local", "ray", "slurm", "ssh")
"""They run cloudtune's trainer with the local back end's methods."""


@pytest.mark.parametrize("name", [name for name in backend_names() if name not in TRAINER_BACKENDS])
def test_other_backends_refuse_with_a_reason(name):
    capabilities = open_backend(name, {}).capabilities
    methods = methods_of(
        "sequence_classification", "token_classification", "question_answering", "seq2seq", "image_classification",
        "speech_recognition",
    )  # fmt: skip
    for feature in (*(f"method:{method}" for method in methods), "adapter:prefix", "adapter.virtual_tokens"):
        assert not capabilities.can(feature)
        assert len(capabilities.reasons[feature]) > 10


def test_what_has_no_effect_on_labels_is_refused(client, spec):
    hyperparameters = spec(method={"name": "classification", "loss_on": "all"}, hyperparameters={"packing": True})
    with pytest.raises(UnsupportedError) as refused:
        client.plan(hyperparameters)
    assert {problem.field for problem in refused.value.problems} == {"method.loss_on", "hyperparameters.packing"}
