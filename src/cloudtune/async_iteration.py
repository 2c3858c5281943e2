"""Iterators for asyncio: each item is fetched in a worker thread, and pauses use none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from cloudtune.clock import SystemClock
from cloudtune.watch import Pause

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from cloudtune.clock import Clock

T = TypeVar("T")
_END = object()


async def in_threads(items: Iterator[T]) -> AsyncIterator[T]:
    """Fetch each item in a thread. A sentinel marks the end, because futures cannot raise StopIteration."""
    while True:
        item = await asyncio.to_thread(next, items, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc]


async def polled(polls: Iterator[T | Pause], clock: Clock) -> AsyncIterator[T]:
    """Yield the results of polls. A pause uses no thread, so that many waits leave the executor to others."""
    async for poll in in_threads(polls):
        if not isinstance(poll, Pause):
            yield poll
        elif isinstance(clock, SystemClock):
            await asyncio.sleep(poll.seconds)
        else:  # a test's clock
            await asyncio.to_thread(clock.sleep, poll.seconds)


async def started_in_threads(start: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """As `in_threads`, for an iterator that is slow to start."""
    items = await asyncio.to_thread(start)
    async for item in in_threads(items):
        yield item
