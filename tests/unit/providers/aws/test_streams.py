"""Streamed answers, put together wherever they are cut; and those that break off."""

from __future__ import annotations

import pytest

from cloudtune.errors import BackendError, Unavailable
from cloudtune_providers.aws.streams import Pieces

CHUNKS = (
    b'data: {"choices": [{"delta": {"content": "Fo"}, "finish_reason": null}]}\n\n'
    b'data: {"choices": [{"delta": {"content": "ur."}, "finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
)
TOKENS = (
    b'{"token": {"text": "Fo"}, "generated_text": null}\n{"token": {"text": "</s>", "special": true}}\n'
    b'{"token": {"text": "ur."}, "generated_text": "Four.",'
    b' "details": {"finish_reason": "eos_token", "generated_tokens": 2}}'
)
WHOLE = (
    b'{"choices": [{"message": {"content": "Four."}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}',
    b'[{"generated_text": "Four.", "details": {"finish_reason": "stop_sequence", "generated_tokens": 2}}]',
)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("content", [CHUNKS, TOKENS, *WHOLE])
def test_it_is_put_together_wherever_it_is_cut(content: bytes, size: int) -> None:
    pieces = Pieces("a-model")
    reported = [one for start in range(0, len(content), size) for one in pieces.read(content[start : start + size])]
    reported += pieces.rest()
    whole = pieces.whole()
    assert all(one.partial for one in reported)
    assert "".join(one.text for one in reported) == whole.text == "Four."
    assert (whole.finish_reason, whole.completion_tokens, whole.partial) == ("stop", 2, False)


@pytest.mark.parametrize("content", [CHUNKS, TOKENS])
@pytest.mark.parametrize("kept", [0, 30, 75, 95])
def test_one_that_breaks_off_is_no_short_answer(content: bytes, kept: int) -> None:
    pieces = Pieces("a-model")
    reported = [*pieces.read(content[:kept]), *pieces.rest()]
    size = sum(len(one.text) for one in reported)
    with pytest.raises(Unavailable, match=f"interrupted after {size} characters"):
        pieces.whole()


def test_an_error_on_the_way_is_told() -> None:
    with pytest.raises(Unavailable, match="no memory left"):
        list(Pieces("a-model").read(b'data: {"error": {"message": "no memory left"}}\n'))
    with pytest.raises(BackendError, match="invalid JSON"):
        list(Pieces("a-model").read(b"data: nonsense\n"))
