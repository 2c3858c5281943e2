"""Files, uploads, models and answers of the OpenAI API, through the real SDK with strict types."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import openai
import pytest
from tests.emulator.conftest import MODEL, chat_rows

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_emulator import Emulator


def test_a_file_comes_back_byte_for_byte(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "näme.jsonl"
    path.write_bytes(chat_rows(3000))
    file = client.files.create(file=path, purpose="fine-tune")
    assert (file.filename, file.bytes, file.purpose) == ("näme.jsonl", path.stat().st_size, "fine-tune")
    assert client.files.content(file.id).read() == path.read_bytes()
    assert client.files.delete(file.id).deleted
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File"):
            ask(file.id)


def test_files_are_listed_by_purpose_order_and_page(emulator: Emulator, client: openai.OpenAI) -> None:
    made = []
    for purpose in ("fine-tune", "batch", "fine-tune", "user_data", "fine-tune"):
        made.append(client.files.create(file=("f.jsonl", b"{}"), purpose=purpose).id)  # type: ignore[arg-type]
        emulator.clock.advance(1)
    assert [file.id for file in client.files.list()] == made[::-1]
    assert [file.id for file in client.files.list(order="asc", limit=2)] == made
    assert [file.id for file in client.files.list(purpose="fine-tune", limit=1)] == [made[4], made[2], made[0]]


def test_the_same_bytes_again_are_another_file(emulator: Emulator, client: openai.OpenAI) -> None:
    for _ in range(2):
        client.files.create(file=("f.jsonl", b"{}"), purpose="fine-tune")
    assert emulator.census()["file_names"] == {"f.jsonl": 2}


def test_a_file_expires(emulator: Emulator, client: openai.OpenAI) -> None:
    file = client.files.create(
        file=("f.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    emulator.clock.advance(3600)
    assert list(client.files.list()) == []
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        client.files.create(file=("f", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 5})


@pytest.mark.parametrize(
    ("name", "purpose", "message"), [("f.jsonl", "fine-tuning", "is not one of"), ("f.json", "fine-tune", "jsonl")]
)
def test_bad_uploads_are_refused(client: openai.OpenAI, name: str, purpose: Any, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.files.create(file=(name, b"{}"), purpose=purpose)


def test_a_large_file_goes_up_in_parts(emulator: Emulator, client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(chat_rows(3000))
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=50_000,
        md5=hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
    )  # fmt: skip
    assert upload.status == "completed"
    assert upload.file is not None
    assert client.files.content(upload.file.id).read() == path.read_bytes()
    assert emulator.census()["parts"] == 0
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.cancel(upload.id)


def test_parts_go_in_the_order_that_is_told_at_the_end(client: openai.OpenAI) -> None:
    upload = client.uploads.create(bytes=6, filename="f.jsonl", mime_type="x/y", purpose="fine-tune")
    second = client.uploads.parts.create(upload.id, data=b"def").id
    first = client.uploads.parts.create(upload.id, data=b"abc").id
    for wrong, message in (([first], "3 bytes"), ([first, "part_none"], "part_none")):
        with pytest.raises(openai.BadRequestError, match=message):
            client.uploads.complete(upload.id, part_ids=wrong)
    with pytest.raises(openai.BadRequestError, match="md5"):
        client.uploads.complete(upload.id, part_ids=[first, second], md5="0" * 32)
    done = client.uploads.complete(upload.id, part_ids=[first, second])
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"abcdef"


def test_an_upload_expires_or_is_cancelled(emulator: Emulator, client: openai.OpenAI) -> None:
    ids = [
        client.uploads.create(bytes=6, filename="f.jsonl", mime_type="x/y", purpose="fine-tune").id for _ in range(2)
    ]
    assert client.uploads.cancel(ids[0]).status == "cancelled"
    emulator.clock.advance(3600)
    for upload, word in zip(ids, ("cancelled", "expired"), strict=True):
        with pytest.raises(openai.BadRequestError, match=word):
            client.uploads.parts.create(upload, data=b"x")
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel("upload_none")


def test_models(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).owned_by == "system"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-none")
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete(MODEL)


def test_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    requested: Any = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a b"}]},
    ]
    whole = client.chat.completions.create(model=MODEL, messages=requested)
    text = f"{MODEL} received: a b"
    assert whole.choices[0].message.content == text
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=requested, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage == whole.usage
    cut = client.chat.completions.create(model=MODEL, messages=requested, max_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (f"{MODEL} received:", "length")


def test_responses_whole_and_streamed(client: openai.OpenAI) -> None:
    text = f"{MODEL} received: a b"
    assert client.responses.create(model=MODEL, input="a b").output_text == text
    with client.responses.stream(
        model=MODEL, instructions="be kind", input=[{"role": "user", "content": "a b"}]
    ) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == text
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    cut = client.responses.create(model=MODEL, input="a b", max_output_tokens=1)
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_stop_sequences_cut_and_what_is_not_emulated_is_refused(client: openai.OpenAI) -> None:
    requested: Any = [{"role": "user", "content": "a b"}]
    cut = client.chat.completions.create(model=MODEL, messages=requested, stop=[" received", "b"])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (MODEL, "stop")
    client.chat.completions.create(model=MODEL, messages=requested, n=1, stop=None)
    for fields in ({"logprobs": True}, {"presence_penalty": 1}, {"response_format": {"type": "json_object"}}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=MODEL, messages=requested, **fields)  # type: ignore[call-overload]
        assert refused.value.code == "not_emulated"
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_1")


def test_wrong_requests_are_refused(client: openai.OpenAI) -> None:
    requested: Any = [{"role": "user", "content": "x"}]
    wrong: list[dict[str, Any]] = [
        {"messages": []}, {"messages": [{"role": "emperor", "content": "x"}]}, {"temperature": 3}, {"max_tokens": 0},
    ]  # fmt: skip
    for fields in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**({"model": MODEL, "messages": requested} | fields))
        assert str(refused.value.param).startswith(next(iter(fields))[:8])


@pytest.mark.parametrize("key", ["sk-wrong-key-0000", "x"])
def test_a_wrong_key(emulator: Emulator, key: str) -> None:
    client = openai.OpenAI(base_url=emulator.openai_url, api_key=key, max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as refused:
        client.models.list()
    assert refused.value.code == "invalid_api_key"
    assert key not in str(refused.value)
