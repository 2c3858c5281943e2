"""The SDK's client: created at the first use, with its own retries disabled; and the translation of its errors."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cloudtune.errors import CloudtuneError, InvalidRequest, InvalidResponse, JobNotFound
from cloudtune.registry import describe, not_installed
from cloudtune_providers.openai_dialect.errors import to_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2
    import openai

KEY_VARIABLE = "OPENAI_API_KEY"
"""The variable from which the SDK reads the key of OpenAI."""
MOST_PAGES = 1000
_ADDRESS_HINT = "check that base_url is the API's address, including /v1"


class Wire:
    """Makes the calls of one back end. ``connect`` creates the SDK's client, and can raise the SDK's exceptions."""

    def __init__(self, backend: str, connect: Callable[[], openai.OpenAI]) -> None:
        info = describe(backend)
        if info.missing:
            raise not_installed(info, info.missing[0])
        self._connect = connect
        self._lock = threading.Lock()
        self._client: openai.OpenAI | None = None
        self._secrets: tuple[str, ...] = ()

    @property
    def client(self) -> openai.OpenAI:
        """The client. cloudtune journals every send, so the SDK must not retry."""
        with self._lock:
            if self._client is None:
                with self.asking("the client"):
                    made = self._connect().with_options(max_retries=0)
                self._secrets = (made.api_key,) if len(made.api_key) > 3 else ()
                self._client = made
            return self._client

    def secrets(self) -> tuple[str, ...]:
        """The key, once the client is created."""
        return self._secrets

    def close(self) -> None:
        """Close the client's connections; the next call creates a new client."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @contextmanager
    def asking(self, what: str, *, missing: type[CloudtuneError] = JobNotFound) -> Iterator[None]:
        """Translate the SDK's exceptions to cloudtune errors about ``what``."""
        import httpx2
        import openai

        try:
            yield
        except CloudtuneError:
            raise
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:  # the second: a stream that is interrupted
            raise to_error(error, what, missing=missing, secrets=self._secrets) from error
        except (AttributeError, LookupError, TypeError) as error:  # the SDK returns a response of any shape
            message = f"{what}: unexpected response ({type(error).__name__}: {error})"
            raise InvalidResponse(message, hint=_ADDRESS_HINT) from error

    def pages(
        self,
        call: Callable[..., Any],
        what: str,
        *,
        missing: type[CloudtuneError] = InvalidRequest,
        limit: int = 100,
        **query: Any,
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the items of a list as plain JSON, without duplicates, until a page has nothing new.

        A 404 for a list means that the address does not have this API, unless ``missing`` is set.
        """
        seen: set[str] = set()
        after: str | None = None
        for _ in range(MOST_PAGES):
            with self.asking(what, missing=missing):
                page = call(limit=limit, **query, **({"after": after} if after else {}))
                entries = [plain(entry) for entry in _entries(page)]
            fresh = list({entry["id"]: entry for entry in entries if entry["id"] not in seen}.values())
            if fresh:
                yield fresh
            if not fresh or page.has_more is False:
                return
            seen.update(entry["id"] for entry in fresh)
            after = entries[-1]["id"]

    def each(self, call: Callable[..., Any], what: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The entries of those pages."""
        for page in self.pages(call, what, **query):
            yield from page


def http_client() -> httpx2.Client:
    """The SDK's own HTTP client, without redirects: a 307 or 308 would repeat an upload to any host.

    Like the client that the SDK makes by itself, it closes its connections when Python collects it.
    """
    import openai

    class ClosingClient(openai.DefaultHttpxClient):
        def __del__(self) -> None:
            if not self.is_closed:
                self.close()

    return ClosingClient(follow_redirects=False)


def _entries(page: Any) -> list[Any]:
    found = getattr(page, "data", None)
    if not isinstance(found, list):
        raise InvalidResponse(f"the response is not a list: {str(page)[:80]!r}", hint=_ADDRESS_HINT)
    return found


def plain(answer: Any) -> dict[str, Any]:
    """An object as plain JSON, including fields and values unknown to the SDK. Raises InvalidResponse."""
    if not hasattr(answer, "to_dict"):
        raise InvalidResponse(f"the response is not JSON: {str(answer)[:80]!r}", hint=_ADDRESS_HINT)
    found = dict(answer.to_dict(mode="json", warnings=False, exclude_unset=True))
    if not isinstance(found.get("id"), str) or not found["id"]:
        raise InvalidResponse(f"the response names no object: {str(found)[:80]}", hint=_ADDRESS_HINT)
    return found
