"""What rows hold besides words and answers: which models and methods take it, and what the plan says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.providers.bedrock.test_bedrock_rules import LLAMA, NOVA, backend_of, problems

from cloudtune.client import Client
from cloudtune.spec import JobSpec
from cloudtune_providers.bedrock.options import BedrockOptions
from cloudtune_providers.bedrock.policies import MANTLE, documents

if TYPE_CHECKING:
    from cloudtune.plan import Plan

MICRO = "amazon.nova-micro-v1:0:128k"
VISION = "meta.llama3-2-11b-instruct-v1:0:128k"
TEACHER = {"bedrock": {"teacher": "amazon.nova-pro-v1:0"}}


def rows(folder: Path, *media: str, count: int = 120, answered: int = 120) -> Path:
    """Converse rows, of which the first ones hold those media, and so many are answered."""
    path = folder / "rows.jsonl"
    lines = []
    for n in range(count):
        requested: list[dict[str, Any]] = [{"text": f"{n}?"}]
        if n < len(media):
            kind = "video" if media[n].endswith("mp4") else "image"
            requested.append(
                {kind: {"format": media[n].rpartition(".")[2], "source": {"s3Location": {"uri": media[n]}}}}
            )
        answer = [{"role": "assistant", "content": [{"text": f"{n}!"}]}] if n < answered else []
        lines.append({"schemaVersion": "bedrock-conversation-2024", "messages": [
            {"role": "user", "content": requested}, *answer]})  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def plan(path: Path, **changes: Any) -> Plan:
    spec = JobSpec.model_validate({"name": "mine", "model": NOVA, "data": {"train": str(path)}} | changes)
    return Client(backend_of(), ledger=f"sqlite:///{path.parent}/plans.db").plan(spec)


FIELD = "messages[0].content[1]"
VIDEO, IMAGE = "s3://rows/media/k.mp4", "s3://rows/media/k.png"


def test_videos_are_for_models_that_are_tuned_on_them(tmp_path: Path) -> None:
    path = rows(tmp_path, VIDEO)
    assert problems(path) == {}
    (said,) = [problem for problem in plan(path).warnings if problem.code == "media_place"]
    assert "the bucket of the rows, rows" in said.message
    assert "s3://rows/cloudtune/media/" in str(said.fix)
    found = problems(path, model=MICRO)[FIELD]
    assert f"{MICRO} is not tuned on videos" in found
    assert f"use one of {NOVA} (image, video), amazon.nova-pro-v1:0:300k (image, video)" in found
    assert "is not tuned on videos" in problems(path, backend_of("us-west-2"), model=VISION)[FIELD]


def test_images_are_for_models_that_see(tmp_path: Path) -> None:
    path = rows(tmp_path, IMAGE)
    assert problems(path) == {}
    assert problems(path, backend_of("us-west-2"), model=VISION) == {}
    assert "is not tuned on images" in problems(path, backend_of("us-west-2"), model=LLAMA)[FIELD]
    both = rows(tmp_path, IMAGE, VIDEO)
    assert "1 rows have images and 1 have videos" in problems(both)["data"]


def test_a_row_that_the_service_refuses_is_told_with_its_line(tmp_path: Path) -> None:
    for uri in ("https://x/k.mp4", "s3://rows/k.mpeg.mp4x"):
        found = problems(rows(tmp_path, VIDEO, uri))
        assert FIELD in found, uri


def test_questions_alone_are_distilled_and_the_plan_says_who_answers(tmp_path: Path) -> None:
    path = rows(tmp_path, answered=10)
    requested: dict[str, Any] = {"method": "distill", "overrides": TEACHER}
    assert problems(path, **requested) == {}
    made = plan(path, **requested)
    said = {problem.code: problem.message for problem in made.warnings}
    assert said["feature"].startswith("110 rows have no answer")
    assert said["teacher_answers"].startswith("amazon.nova-pro-v1:0 answers the rows without an answer")
    (encode,) = [step for step in made.steps if step.kind == "encode"]
    assert encode.request["format"] == "bedrock-converse"
    assert "the last turn has the role user" in str(problems(path))
    whole = plan(rows(tmp_path), **requested)
    assert "teacher_answers" not in {problem.code for problem in whole.warnings}
    assert "at least" in str(problems(rows(tmp_path, count=99, answered=0), **requested))
    assert "has an image or video" in problems(rows(tmp_path, IMAGE), **requested)[FIELD]


# -- the documents for the OpenAI-shaped API ---------------------------------------------------------------------------


def test_the_policy_for_open_weight_models_allows_what_the_back_end_calls() -> None:
    made = documents(BedrockOptions(bucket="rows"), account="123456789012", region="us-east-1")
    policy = {one["Sid"]: one for one in json.loads(made["bedrock-open-weight-policy.json"])["Statement"]}
    # That API is in one region only, whatever the others are in.
    assert policy["OpenWeight"]["Resource"] == "arn:aws:bedrock-mantle:us-west-2:123456789012:project/*"
    assert policy["OpenWeight"]["Action"] == [f"bedrock-mantle:{name}" for name in MANTLE]
    assert policy["ByKey"]["Action"] == ["bedrock-mantle:CallWithBearerToken", "bedrock:CallWithBearerToken"]
    assert policy["Grade"]["Resource"].endswith(":function:GRADER")
    assert not any("*" in action for one in policy.values() for action in one["Action"])
    grader = "arn:aws:lambda:us-west-2:123456789012:function:grade"
    named = documents(BedrockOptions(), account="1", region="us-west-2", grader=grader)[
        "bedrock-open-weight-policy.json"
    ]
    assert json.loads(named)["Statement"][-1]["Resource"] == grader


@pytest.mark.parametrize(("call", "action"), [
    ("files.create", "CreateFile"), ("files.retrieve", "GetFile"), ("files.list", "ListFiles"),
    ("files.delete", "DeleteFile"), ("jobs.create", "CreateFineTuningJob"), ("jobs.retrieve", "GetFineTuningJob"),
    ("jobs.list", "ListFineTuningJobs"), ("jobs.cancel", "CancelFineTuningJob"),
    ("completions.create", "CreateInference"),
])  # fmt: skip
def test_every_call_of_the_dialect_has_its_action(call: str, action: str) -> None:
    from cloudtune_providers import openai_dialect

    sources = [path.read_text() for path in Path(str(openai_dialect.__path__[0])).glob("*.py")]
    assert any(f".{call}" in source for source in sources)
    assert action in MANTLE
