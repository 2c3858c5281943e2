"""Answers in pieces, as the model writes them: an ear for its tokens, and a thread in which it writes."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HALF = "\ufffd"
"""What a decoder makes of a character whose bytes have not all come."""


class TokenStreamer:
    """Listens to ``generate``, and hears text. Tokens that end an answer are no part of it."""

    def __init__(self, decode: Callable[[Sequence[int]], str], ends: Sequence[int]) -> None:
        self._decode = decode
        self._ends = frozenset(ends)
        self._tokens: list[int] = []
        self._told = ""
        self._has_prompt = False
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._is_left = threading.Event()

    # -- what transformers calls -------------------------------------------------------------------------------------

    def put(self, value: Any) -> None:
        """Tokens of the one row: the prompt's first, then one after another."""
        if not self._has_prompt:
            self._has_prompt = True
            return
        for token in value.reshape(-1).tolist():
            if token in self._ends:
                return
            self._tokens.append(token)
        text = self._decode(self._tokens).removesuffix(_HALF)  # the last character alone may still change
        if text.startswith(self._told) and text != self._told:
            self._heard.put(text[len(self._told) :])
            self._told = text

    def end(self) -> None:
        """Nothing: the answer itself tells what had not become whole."""

    def has_left(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Whether nobody listens any more: a stopping criterion."""
        import torch

        return torch.full((input_ids.shape[0],), self._is_left.is_set(), dtype=torch.bool, device=input_ids.device)

    # -- what listeners call -----------------------------------------------------------------------------------------

    def listen(self, write: Callable[[], Any]) -> Iterator[Any]:
        """Pieces while ``write`` runs in a thread of its own, then what it returns. Raises what it raises."""

        def run() -> None:
            try:
                self._heard.put((write(), None))
            except BaseException as error:  # noqa: BLE001 - told to whoever listens
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
