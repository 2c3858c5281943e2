"""``cloudtune serve``: one model's answers over HTTP, in the dialect of OpenAI's chat completions.

It shares the emulator's server, its checks of requests and its parameters. Answers come from `ask`, which asks
the model's back end, and stream as they are generated.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

from msgspec import structs
from werkzeug.wrappers import Request

from cloudtune.errors import CloudtuneError, InputError, InvalidRequest, RateLimited
from cloudtune.optional import GenerateOptions
from cloudtune_emulator import admission
from cloudtune_emulator.app import send
from cloudtune_emulator.http import ApiError, Call, Reply, read_call, sse
from cloudtune_emulator.http_server import HttpServer
from cloudtune_emulator.openai import chat_params
from cloudtune_emulator.store import new_id
from cloudtune_emulator.wsgi_bridge import BodyTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloudtune.optional import Prompt
    from cloudtune.state import Generation

    Ask = Callable[[Prompt, GenerateOptions], Iterator[Generation]]

_LOG = logging.getLogger(__name__)
BASE = "base"
"""The name of the model before training."""


class ModelServer:
    """Serves a tuned model under its name, and its base model as ``base``.

    Args:
        ask: Generates the answer to a conversation. It is called by one thread at a time.
        name: The model's name in requests.
        host: The address to listen on.
        port: The port. 0 chooses a free one.
        key: What requests must send as a bearer token. Empty: no token is needed, which is for loopback only.
    """

    def __init__(self, ask: Ask, name: str, *, host: str = "127.0.0.1", port: int = 0, key: str = "") -> None:
        self._ask, self._host, self._key = ask, host, key.encode()
        if name == BASE:
            raise InputError(f"a model cannot be served as {BASE}, which names the model before training")
        self._names = (name, BASE)
        self._started = int(time.time())
        self._lock = threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{listening.getsockname()[1]}/v1"
        self._http = HttpServer(self, listening)

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.stop()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI."""
        try:
            reply = self._serve(Request(environ))
        except ApiError as error:
            reply = error.reply()
        except BodyTimeout:
            reply = ApiError(408, "The request body arrives too slowly.", code="RequestTimeout").reply()
        except ConnectionAbortedError:
            raise
        except Exception:  # noqa: BLE001 - a client must always get a response that it can parse
            _LOG.exception("internal error")
            reply = ApiError(500, "Internal error; see the log of the server.", type="server_error").reply()
        return send(reply, time.time(), start_response)

    def _serve(self, request: Request) -> Reply:
        admission.check(request, self._host)
        self._check_key(request)
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["v1", "models"]:
                return Reply(body={"object": "list", "data": [self._model(name) for name in self._names]})
            case "GET", ["v1", "models", name]:
                return Reply(body=self._model(name))
            case "POST", ["v1", "chat", "completions"]:
                with closing(read_call(request, "openai", "chat.create", {}, time.time())) as call:
                    return self._create(call)
        raise ApiError(404, f"Unknown request URL: {request.method} {request.path}.", code="unknown_url")

    def _check_key(self, request: Request) -> None:
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        if self._key and not secrets.compare_digest(sent, self._key):
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    def _model(self, name: Any) -> dict[str, Any]:
        if name not in self._names:
            message = f"The model {name!r} does not exist; use {' or '.join(self._names)}."
            raise ApiError(404, message, code="model_not_found", param="model")
        return {"id": name, "object": "model", "created": self._started, "owned_by": "cloudtune"}

    def _create(self, call: Call) -> Reply:
        body = call.body
        name = self._model(body.get("model"))["id"]
        chat_params.refuse_chat(body)
        if chat_params.choices(body) > 1 or body.get("tools"):
            raise ApiError(400, "'n' and 'tools' are not supported.", code="unsupported_parameter")
        drawn = chat_params.sampled(body, "max_completion_tokens", "max_tokens")
        options = GenerateOptions(
            max_tokens=drawn.max_tokens, temperature=drawn.temperature, top_p=drawn.top_p, seed=drawn.seed,
            base=name == BASE, stream=bool(body.get("stream")),
        )  # fmt: skip
        answers = _until(self._answers(body.get("messages"), options), chat_params.stops(body))
        first = next(answers)  # errors of the model are responses, not broken streams
        head = {"id": new_id("chatcmpl-"), "created": int(call.now), "model": name}
        if options.stream:
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            chunks = _chunks(head, first, answers, with_usage=with_usage)
            return Reply(body=sse(((None, chunk) for chunk in chunks), done=True), content_type="text/event-stream")
        message = {"role": "assistant", "content": first.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": first.finish_reason, "logprobs": None}
        return Reply(body=head | {"object": "chat.completion", "choices": [choice], "usage": _usage(first)})

    def _answers(self, messages: Any, options: GenerateOptions) -> Iterator[Generation]:
        if not isinstance(messages, list) or not messages:
            raise ApiError(400, "'messages' must be a list of at least one message.", param="messages")
        turns = [_turn(number, message) for number, message in enumerate(messages)]
        with self._lock:
            try:
                yield from self._ask(turns, options)
            except RateLimited as error:
                raise ApiError(429, error.message, code="rate_limit_exceeded") from error
            except (InputError, InvalidRequest) as error:
                raise ApiError(400, error.message, param="messages") from error
            except CloudtuneError as error:
                raise ApiError(502, error.message, type="server_error") from error


def _turn(number: int, message: dict[str, Any]) -> dict[str, Any]:
    """The message with its content as one text, as chat templates take it. Raises ApiError."""
    place, content = f"messages[{number}]", message.get("content")
    if not message.get("role"):
        raise ApiError(400, f"Missing required parameter: '{place}.role'.", param=f"{place}.role")
    if not isinstance(content, list):
        return message
    if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
        refusal = f"'{place}.content' has a part that is not text, which is not supported."
        raise ApiError(400, refusal, param=f"{place}.content", code="unsupported_parameter")
    return message | {"content": "".join(part["text"] for part in content)}


def _until(answers: Iterator[Generation], stops: Sequence[str]) -> Iterator[Generation]:
    """The parts of an answer up to the first stop sequence, then the whole answer.

    Text that may be the beginning of a stop sequence is held back.
    """
    held, text, sent, streams = max(map(len, stops), default=1) - 1, "", "", False
    for answer in answers:
        streams = streams or answer.partial
        text = text + answer.text if answer.partial else answer.text
        cut = min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
        is_last = cut is not None or not answer.partial
        safe = text[:cut] if is_last else text[: max(len(text) - held, 0)]
        if streams and len(safe) > len(sent):
            yield structs.replace(answer, text=safe[len(sent) :], partial=True)
            sent = safe
        if is_last:
            reason = answer.finish_reason if cut is None else "stop"
            yield structs.replace(answer, text=safe, partial=False, finish_reason=reason)
            return


def _usage(answer: Generation) -> dict[str, int]:
    prompt, completion = answer.prompt_tokens or 0, answer.completion_tokens or 0
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _chunks(
    head: dict[str, Any], first: Generation, others: Iterator[Generation], *, with_usage: bool
) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer, as they are generated."""
    head = head | {"object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return head | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]}

    yield chunk({"role": "assistant", "content": ""})
    answer, is_streamed = first, first.partial
    while answer.partial:
        yield chunk({"content": answer.text})
        try:
            answer = next(others)
        except ApiError as error:  # OpenAI's clients raise it
            yield error.body
            return
    if not is_streamed:
        yield chunk({"content": answer.text})
    yield chunk({}, answer.finish_reason)
    if with_usage:
        yield head | {"choices": [], "usage": _usage(answer)}
