"""Streaming of answers: a streamer that decodes tokens, and a thread for generation."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HALF = "\ufffd"
"""The decoder's output for an incomplete character."""


class TokenStreamer:
    """A streamer for ``generate`` that decodes text. Tokens that end an answer are excluded."""

    def __init__(self, decode: Callable[[Sequence[int]], str], ends: Sequence[int]) -> None:
        self._decode = decode
        self._ends = frozenset(ends)
        self._tokens: list[int] = []
        self._told = ""
        self._has_prompt = False
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._is_left = threading.Event()

    # -- called by transformers --------------------------------------------------------------------------------------

    def put(self, value: Any) -> None:
        """Tokens of the one row: the prompt's first, then one after another."""
        if not self._has_prompt:
            self._has_prompt = True
            return
        for token in value.reshape(-1).tolist():
            if token in self._ends:
                return
            self._tokens.append(token)
        text = self._decode(self._tokens).removesuffix(_HALF)  # only the last character may still change
        if text.startswith(self._told) and text != self._told:
            self._heard.put(text[len(self._told) :])
            self._told = text

    def end(self) -> None:
        """Does nothing: the final answer has the remaining text."""

    def has_left(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Whether the consumer has stopped: a stopping criterion."""
        import torch

        return torch.full((input_ids.shape[0],), self._is_left.is_set(), dtype=torch.bool, device=input_ids.device)

    # -- called by consumers ----------------------------------------------------------------------------------------

    def listen(self, write: Callable[[], Any]) -> Iterator[Any]:
        """Chunks while ``write`` runs in its own thread, then its result. Raises its exception."""

        def run() -> None:
            try:
                self._heard.put((write(), None))
            except BaseException as error:  # noqa: BLE001 - passed to the consumer
                self._heard.put((None, error))

        thread = threading.Thread(target=run, name="cloudtune answer", daemon=True)
        thread.start()
        try:
            while isinstance(heard := self._heard.get(), str):
                yield heard
            answer, error = heard
            if error is not None:
                raise error
            if rest := answer.text[len(self._told) :]:
                yield rest
            yield answer
        finally:
            self._is_left.set()
            thread.join()
