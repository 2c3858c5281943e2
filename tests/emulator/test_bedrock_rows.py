"""What lines the emulated Bedrock takes as rows: videos, images, questions alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudtune_emulator.bedrock import rows
from cloudtune_emulator.engines import text_of

NOVA = "amazon.nova-lite-v1:0:300k"
MICRO = "amazon.nova-micro-v1:0:128k"
VISION = "meta.llama3-2-11b-instruct-v1:0:128k"


def medium(kind: str = "video", form: str = "mp4", uri: str = "s3://b/media/k.mp4") -> dict[str, Any]:
    return {kind: {"format": form, "source": {"s3Location": {"uri": uri, "bucketOwner": "111122223333"}}}}


IMAGE = medium("image", "png", "s3://b/media/k.png")


def row(*requested: dict[str, Any], answer: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    said = [{"role": "user", "content": [{"text": "Q"}, *requested]}]
    answered = {"role": "assistant", "content": [{"text": "A"}] if answer is None else answer}
    return {"schemaVersion": "bedrock-conversation-2024", "messages": [*said, *([answered] if answer != [] else [])]}


def check(*lines: dict[str, Any], base: str = NOVA, kind: str = "FINE_TUNING", count: int = 8) -> rows.Counted:
    """The lines, and plain ones up to that many."""
    given = [*lines, *[row() for _ in range(count - len(lines))]]
    data = "\n".join(json.dumps(line) for line in given).encode()
    return rows.check(data, rows.Task(base, kind, "b"), "rows.jsonl")


@pytest.mark.parametrize("form", ["mov", "mkv", "mp4", "webm"])
def test_a_video_is_taken_in_its_formats(form: str) -> None:
    found = check(row(medium(form=form)))
    assert found.fault is None
    (requested, answer) = found.chats[0]["messages"]
    assert text_of(requested) == "Q"
    assert requested["content"][1] == {"type": "video_url", "video_url": {"url": "s3://b/media/k.mp4"}}
    assert answer["content"] == "A"


@pytest.mark.parametrize(("line", "base", "said"), [
    (row(medium(form="flv")), NOVA, "needs a format of mov, mkv, mp4, webm"),
    (row(medium(uri="https://b/k.mp4")), NOVA, "source.s3Location.uri"),
    (row(medium(uri="s3://another/k.mp4")), NOVA, "must lie in the data's own bucket, b"),
    (row({"video": {"format": "mp4", "source": {"bytes": "AAAA"}}}), NOVA, "source.s3Location.uri"),
    (row({"video": "s3://b/k.mp4"}), NOVA, "the video must be an object"),
    (row(medium(), medium()), NOVA, "at most 1 video(s)"),
    (row(*[IMAGE] * 11), NOVA, "at most 10 image(s)"),
    (row(IMAGE, medium()), NOVA, "may not be mixed"),
    (row(answer=[medium()]), NOVA, "only the user's turns"),
    (row(medium()), MICRO, f"{MICRO} takes no video"),
    (row(IMAGE), MICRO, f"{MICRO} takes no image"),
], ids=str)  # fmt: skip
def test_what_is_not_taken_fails_the_job_with_its_line(line: dict[str, Any], base: str, said: str) -> None:
    fault = check(row(), line, base=base).fault
    assert fault is not None
    assert "line 2: " in fault
    assert said in fault


def test_a_dataset_has_images_or_videos() -> None:
    assert check(row(IMAGE), row(*[IMAGE] * 10)).fault is None
    assert "line 3: images and videos may not be mixed" in str(check(row(IMAGE), row(), row(medium())).fault)


def test_llamas_vision_models_take_images_alone() -> None:
    assert check(row(IMAGE), base=VISION, count=100).fault is None
    assert f"{VISION} takes no video" in str(check(row(medium()), base=VISION, count=100).fault)


def test_distillation_takes_questions_with_and_without_answers_as_converse() -> None:
    found = check(row(answer=[]), kind="DISTILLATION", count=100)
    assert found.fault is None
    assert [len(chat["messages"]) for chat in found.chats[:2]] == [1, 2]
    assert "must have at least 100" in str(check(row(answer=[]), kind="DISTILLATION", count=99).fault)
    assert "of text alone" in str(check(row(IMAGE), kind="DISTILLATION", count=100).fault)
    pair = {"prompt": "Q"}
    llama = "meta.llama3-1-8b-instruct-v1:0:128k"
    assert "'schemaVersion' is missing" in str(check(pair, base=llama, kind="DISTILLATION", count=100).fault)
    talk = row(answer=[])
    talk["messages"] += [{"role": "assistant", "content": [{"text": "A"}]}, *talk["messages"]]
    assert check(talk, kind="DISTILLATION", count=100).fault is None
    assert "not a conversation" in str(check(talk, base=llama, kind="DISTILLATION", count=100).fault)
    assert "the last message must be the assistant's" in str(check(row(answer=[])).fault)
