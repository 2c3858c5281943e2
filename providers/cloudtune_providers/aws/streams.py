"""Streamed answers of serving images: lines of JSON in chunks that can be split anywhere.

OpenAI's chunks, with or without ``data:``, and the tokens of TGI and DJL (docs.djl.ai, LMI output schema;
huggingface.co/docs/text-generation-inference; seen 2026-11-21). A server that cannot stream sends its whole answer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune.errors import InvalidRequest, InvalidResponse, Unavailable
from cloudtune.state import Generation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune_providers.aws.clients import Clients

REASONS = {"eos_token": "stop", "stop_sequence": "stop"}
"""TGI's and DJL's finish reasons."""


def in_pieces(clients: Clients, where: Mapping[str, str], body: Mapping[str, Any], model: str) -> Iterator[Generation]:
    """The chunks of an endpoint's answer, then the whole. Raises Unavailable if the stream breaks off."""
    endpoint = where["EndpointName"]
    pieces = Pieces(model)
    asking = f"endpoint {endpoint}"
    with clients.asking(asking, missing=InvalidRequest):
        response = clients.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
            **where, ContentType="application/json", Body=json.dumps(body).encode()
        )
    stream = response["Body"]
    try:
        events = iter(stream)
        while True:
            with clients.asking(asking, missing=InvalidRequest):
                event = next(events, None)
            if event is None:
                break
            if "PayloadPart" in event:
                yield from pieces.read(event["PayloadPart"]["Bytes"])
        yield from pieces.rest()
    finally:
        stream.close()
    yield pieces.whole()


class Pieces:
    """A streamed answer of ``model``."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._rest = b""
        self._texts: list[str] = []
        self._reason = ""
        self._usage: Mapping[str, Any] = {}
        self._has_ended = False

    def read(self, part: bytes) -> Iterator[Generation]:
        """The text chunks that a part completes."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            if (text := self._text(line)) is not None:
                self._texts.append(text)
                yield Generation(text=text, partial=True, model=self._model)

    def rest(self) -> Iterator[Generation]:
        """The text of a complete last line without a line end."""
        try:
            json.loads(self._rest.strip().removeprefix(b"data:") or b"{}")
        except ValueError:  # truncated in the middle
            return
        yield from self.read(b"\n")

    def whole(self) -> Generation:
        """The whole answer, once the stream has ended. Raises Unavailable if it broke off before that."""
        for _ in self.rest():
            pass
        text = "".join(self._texts)
        if not self._has_ended:
            raise Unavailable(
                f"{self._model}: the response was interrupted after {len(text)} characters", hint="try again"
            )
        return Generation(
            text=text, finish_reason=self._reason, model=self._model, prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
        )  # fmt: skip

    def _text(self, line: bytes) -> str | None:
        """The text that a line adds to the answer."""
        content = line.strip().removeprefix(b"data:").strip()
        if content == b"[DONE]":
            self._has_ended = True
        if not content or content.startswith((b"[DONE]", b":")):
            return None
        document = self._object(content)
        if document.get("error"):
            error = document["error"]
            raise Unavailable(f"{self._model}: {error.get('message') if isinstance(error, dict) else error}")
        self._usage = document.get("usage") or self._usage
        if choices := document.get("choices"):
            return self._of_choice(choices[0])
        return self._of_token(document)

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
        except ValueError as error:
            raise InvalidResponse(f"{self._model} streamed invalid JSON: {content[:200]!r}") from error
        if isinstance(document, list) and document:
            document = document[0]
        if not isinstance(document, dict):
            raise InvalidResponse(f"{self._model} streamed JSON that is not an object: {content[:200]!r}")
        return document

    def _of_choice(self, choice: Mapping[str, Any]) -> str | None:
        self._ends(choice.get("finish_reason"))
        said = choice.get("delta") or choice.get("message") or {}
        return said.get("content") or choice.get("text") or None

    def _of_token(self, document: Mapping[str, Any]) -> str | None:
        if details := document.get("details"):
            self._ends(details.get("finish_reason"))
            self._usage = {"completion_tokens": details.get("generated_tokens"), **self._usage}
        whole = document.get("generated_text")
        self._has_ended = self._has_ended or whole is not None
        token = document.get("token")
        if token is None and not self._texts:
            return whole or None
        token = token or {}
        return None if token.get("special") else token.get("text") or None

    def _ends(self, reason: Any) -> None:
        if reason:
            self._has_ended = True
            self._reason = REASONS.get(str(reason), str(reason))
