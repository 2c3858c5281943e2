"""Asks a model for answers: all in one call, which can use batches, or several calls at a time."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from cloudtune.errors import BackendError, InvalidRequest, RateLimited, TransientError
from cloudtune.evaluation.rows import text_of
from cloudtune.retry import LONGEST_RETRY_AFTER_S, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloudtune.clock import Clock
    from cloudtune.optional import Input, Prompt
    from cloudtune.prompts import Passage
    from cloudtune.state import Generation

    Question = Prompt | Input | Passage
    Ask = Callable[[Sequence[Any]], Iterator[Generation]]

_REJECTED_AT_FIRST = 3
"""So many rejected prompts before any answer mean that the model rejects all."""
_SHOWN = 5


class PendingPrompts:
    """Prompts without an answer. Each answer is stored before the next one is waited for."""

    def __init__(
        self, missing: dict[bytes, Question], known: int, ask: Ask,
        store: Callable[[bytes, Generation], None], progress: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self._missing = dict(sorted(missing.items(), key=lambda one: len(text_of(one[1]))))
        self._unasked = len(missing)
        self._count = known + len(missing)
        self._ask, self._store, self._progress = ask, store, progress
        self._rejected: dict[bytes, InvalidRequest] = {}
        progress(known, self._count)

    def ask_in_order(self, clock: Clock) -> None:
        """Ask for all answers in one call, again after temporary errors."""
        while self._missing:
            reading(clock, self._one_call)

    def _one_call(self) -> None:
        """Ask for the missing answers. Returns early when the back end fails after at least one answer."""
        count = len(self._missing)
        try:
            answers = self._ask(list(self._missing.values()))
            for key, answer in zip(list(self._missing), answers, strict=False):
                self._answered(key, answer)
            if self._missing:
                missing = len(self._missing)
                raise BackendError(f"the back end did not answer every prompt: {missing:,} of {count:,} are missing")
            if next(answers, None) is not None:
                raise BackendError("the back end returned more answers than prompts")
        except TransientError:
            if len(self._missing) == count:
                raise

    def ask_in_parallel(self, clock: Clock, workers: int) -> None:
        """Ask with several calls at a time. When the vendor throttles, wait as it says and ask with half as many.

        Raises InvalidRequest with the rejected prompts, after all others are answered.
        """
        with ThreadPoolExecutor(workers, thread_name_prefix="evaluate") as pool:
            while len(self._missing) > len(self._rejected):
                error = reading(clock, self._round, pool, workers)
                if isinstance(error, RateLimited):
                    workers = max(1, workers // 2)
                    clock.sleep(min(error.retry_after or 0.0, LONGEST_RETRY_AFTER_S))
        if self._rejected:
            raise self._rejection()

    def _round(self, pool: ThreadPoolExecutor, workers: int) -> TransientError | None:
        """Ask until the end or a temporary error, which is returned after at least one answer and raised otherwise."""
        before = len(self._missing)
        waiting = iter([key for key in self._missing if key not in self._rejected])
        asked: dict[Future[Generation], bytes] = {}
        temporary: TransientError | None = None
        fatal: Exception | None = None
        while True:
            while temporary is None and fatal is None and len(asked) < workers and (key := next(waiting, None)):
                asked[pool.submit(self._one, self._missing[key])] = key
            if not asked:
                break
            for future in wait(asked, return_when=FIRST_COMPLETED).done:
                key = asked.pop(future)
                try:
                    self._answered(key, future.result())
                except TransientError as error:
                    temporary = error
                except InvalidRequest as error:
                    self._rejected[key] = error
                    if len(self._missing) == self._unasked and len(self._rejected) >= _REJECTED_AT_FIRST:
                        fatal = error
                except Exception as error:  # noqa: BLE001 - raised below, once the calls in flight have ended
                    fatal = error
        if fatal is not None:
            raise fatal
        if temporary is not None and len(self._missing) == before:
            raise temporary
        return temporary

    def _one(self, prompt: Any) -> Generation:
        answers = self._ask([prompt])
        answer = next(answers, None)
        if answer is None:
            raise BackendError("the back end did not answer the prompt")
        if next(answers, None) is not None:
            raise BackendError("the back end returned more answers than prompts")
        return answer

    def _answered(self, key: bytes, answer: Generation) -> None:
        self._store(key, answer)
        del self._missing[key]
        self._progress(self._count - len(self._missing), self._count)

    def _rejection(self) -> InvalidRequest:
        errors = list(self._rejected.values())
        if len(errors) == 1 and self._count == 1:
            return errors[0]
        shown = [f"{text_of(self._missing[key])[:60]!r}: {error.message}"
                 for key, error in list(self._rejected.items())[:_SHOWN]]  # fmt: skip
        more = [f"and {len(errors) - _SHOWN:,} more"] if len(errors) > _SHOWN else []
        return InvalidRequest(
            "\n".join([f"{len(errors):,} of {self._count:,} prompts were rejected:", *shown, *more]),
            hint="remove these rows; all other answers are stored",
        )
