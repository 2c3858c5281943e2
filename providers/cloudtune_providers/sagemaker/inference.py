"""Calls an endpoint in the format that the trainer's server and the usual images accept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune.errors import InvalidRequest, InvalidResponse
from cloudtune.prompts import messages_of
from cloudtune.state import Generation
from cloudtune_providers.aws.streams import in_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune_providers.aws.clients import Clients


def asked(
    clients: Clients, where: Mapping[str, str], prompt: Prompt, options: GenerateOptions, model: str, **more: Any
) -> Iterator[Generation]:
    """One answer: whole, or with streaming its chunks and then the whole."""
    body = request_of(prompt, options) | more
    if options.stream:
        yield from in_pieces(clients, where, body | {"stream": True}, model)
    else:
        yield _answer(_invoke(clients, where, body), model)


def request_of(prompt: Prompt, options: GenerateOptions) -> dict[str, Any]:
    """The body."""
    messages = messages_of(prompt)
    body: dict[str, Any] = {
        "messages": messages, "max_tokens": options.max_tokens, "temperature": options.temperature,
        "top_p": options.top_p,
    }  # fmt: skip
    return body | ({"seed": options.seed} if options.seed is not None else {})


def _invoke(clients: Clients, where: Mapping[str, str], body: Mapping[str, Any]) -> bytes:
    with clients.asking(f"endpoint {where['EndpointName']}", missing=InvalidRequest):
        response = clients.client("sagemaker-runtime").invoke_endpoint(
            **where, ContentType="application/json", Accept="application/json", Body=json.dumps(body).encode()
        )
        return bytes(response["Body"].read())


def _answer(content: bytes, model: str) -> Generation:
    try:
        document = json.loads(content)
        choice, usage = document["choices"][0], document.get("usage") or {}
        return Generation(
            text=str(choice["message"]["content"]), finish_reason=str(choice.get("finish_reason") or ""), model=model,
            prompt_tokens=usage.get("prompt_tokens"), completion_tokens=usage.get("completion_tokens"),
        )  # fmt: skip
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InvalidResponse(f"the endpoint returned an unexpected response: {content[:200]!r}") from error
