"""Documents of the hub, read whichever way they are spelt; and what a script's log says."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune_providers.aws.instances import accelerators, family_of
from cloudtune_providers.jumpstart.document import Document, Hyper, as_sent, kept
from cloudtune_providers.jumpstart.results import answer, asking, figures

UPPER = {"Name": "epoch", "Type": "int", "Default": 5, "Min": 1, "Max": "10", "Scope": "algorithm"}
LOWER = {"name": "epoch", "default": 2}


def document(**more: Any) -> Document:
    variants = {"g5": {"Properties": {"Hyperparameters": [LOWER], "ImageUri": "$gpu"}},
                "ml.p4d.24xlarge": {"Properties": {"ImageUri": "plain", "EnvironmentVariables": {"A": 1}}}}  # fmt: skip
    content = {
        "TrainingSupported": True, "TrainingScriptUri": "s3://x/y.tar.gz", "TrainingEcrUri": "default",
        "Hyperparameters": [UPPER, {"name": "rate", "type": "float", "default": "1e-4", "min": 0, "max": 1},
                            {"Name": "sagemaker_program", "Default": "x.py"}],
        "TrainingInstanceTypeVariants": {"Aliases": {"gpu": "resolved"}, "Variants": variants},
    }  # fmt: skip
    return Document(content | more)


def test_both_key_styles_are_read() -> None:
    known = document().hyperparameters("ml.m5.xlarge")
    assert known["epoch"] == Hyper("epoch", "int", 5, 1.0, 10.0)
    assert known["rate"] == Hyper("rate", "float", "1e-4", 0.0, 1.0)
    assert "sagemaker_program" not in known


def test_a_variant_changes_the_default_and_keeps_the_range() -> None:
    assert document().hyperparameters("ml.g5.2xlarge")["epoch"] == Hyper("epoch", "int", 2, 1.0, 10.0)
    assert document().defaults("ml.g5.2xlarge") == {"epoch": "2", "rate": "1e-4"}


def test_the_family_counts_before_the_type() -> None:
    assert document().image("ml.g5.48xlarge") == "resolved"
    assert document().image("ml.p4d.24xlarge") == "plain"
    assert document().image("ml.p5.48xlarge") == "default"
    assert document().environment("ml.p4d.24xlarge") == {"A": "1"}


def test_a_configuration_lies_over_the_model() -> None:
    parts = {"TrainingConfigComponents": {"fast": {"TrainingEcrUri": "other"}}}
    whole = document(**parts)
    assert whole.configs == ("fast",)
    assert Document({"TrainingEcrUri": "default", **parts}, "fast").image("ml.m5.xlarge") == "other"


def test_gated_weights_come_first() -> None:
    gated = {"Variants": {"g5": {"Properties": {"GatedModelEnvVarUri": "s3://gated/"}}}}
    found = document(TrainingArtifactUri="s3://open/", TrainingInstanceTypeVariants=gated)
    assert (found.weights("ml.g5.xlarge"), found.weights("ml.p5.48xlarge")) == ("s3://gated/", "s3://open/")


@pytest.mark.parametrize(
    ("entry", "value", "fault"),
    [
        (Hyper("n", "int", least=1, most=10), "3", ""),
        (Hyper("n", "int", least=1, most=10), "11", "lies between 1 and 10"),
        (Hyper("n", "int", least=-1), "-2", "lies between -1 and any"),
        (Hyper("n", "int"), "2.5", "is a whole number"),
        (Hyper("r", "float"), "fast", "is a number"),
        (Hyper("b", "text", options=("True", "False")), "yes", "is one of True, False"),
        (Hyper("t", "text"), "anything", ""),
    ],
)
def test_values_are_held_against_the_document(entry: Hyper, value: str, fault: str) -> None:
    assert entry.fault(value) == fault


def test_truth_is_a_word_and_whole_numbers_are_whole() -> None:
    assert [as_sent(value) for value in (True, 3.0, 2e-4, "x", 1e-05)] == ["True", "3", "0.0002", "x", "1e-05"]


def test_only_what_is_used_is_kept() -> None:
    assert kept({"TrainingSupported": True, "HostingModelPackageArn": "x", "License": None}) == {
        "TrainingSupported": True
    }


def test_empty_documents_do_no_harm() -> None:
    nothing = Document({})
    assert not nothing.trains
    assert nothing.image("ml.g5.2xlarge") == ""
    assert nothing.hyperparameters("") == {}
    assert nothing.metrics() == []


def test_accelerators_are_known_by_type() -> None:
    names = ("ml.g5.2xlarge", "ml.g5.12xlarge", "ml.p4d.24xlarge", "ml.m5.large", "x")
    assert [accelerators(name) for name in names] == [1, 4, 8, None, None]
    assert family_of("ml.g5.2xlarge") == "g5"


def test_a_trainers_line_is_read() -> None:
    train = figures("{'loss': 1.5, 'grad_norm': '0.7', 'learning_rate': 2e-4, 'epoch': 0.5}")
    assert train is not None
    assert (train.values, train.split, train.epoch, train.step) == (
        {"loss": 1.5, "grad_norm": 0.7, "learning_rate": 2e-4}, "train", 0.5, None,
    )  # fmt: skip
    held = figures("INFO: {'eval_loss': 1.25, 'epoch': 1.0}")
    assert held is not None
    assert (held.values, held.split) == ({"loss": 1.25}, "validation")
    for line in (
        "loading",
        "loss is {high}",
        "{'loss': os.system('x')}",
        "{'train_runtime': 3.0}",
        "{1, 2} loss",
        "}{loss",
    ):
        assert figures(line) is None


@pytest.mark.parametrize(
    ("content", "text", "reason"),
    [
        (b'[{"generated_text": "a"}]', "a", ""),
        (b'{"generated_text": "b", "details": {"finish_reason": "eos_token", "generated_tokens": 4}}', "b", "stop"),
        (b'{"choices": [{"message": {"content": "c"}, "finish_reason": "length"}]}', "c", "length"),
    ],
)
def test_answers_in_the_usual_forms_are_read(content: bytes, text: str, reason: str) -> None:
    said = answer(content, "an-endpoint")
    assert (said.text, said.finish_reason, said.model) == (text, reason, "an-endpoint")


@pytest.mark.parametrize("content", [b"<html>", b"{}", b"[]", b'"text"'])
def test_other_answers_are_errors(content: bytes) -> None:
    with pytest.raises(Exception, match="returned"):
        answer(content, "an-endpoint")


def test_a_template_makes_the_prompt() -> None:
    from cloudtune.optional import GenerateOptions

    messages = [{"role": "user", "content": "Why {context}?"}]
    body = asking(
        messages, GenerateOptions(), {"prompt": "Q: {instruction} [{context}] A:", "completion": "{response}"}
    )
    assert body["inputs"] == "Q: Why {context}? [] A:"
    assert body["parameters"]["do_sample"] is False
    assert asking(messages, GenerateOptions(seed=3), None)["seed"] == 3
