"""`Client.close` closes every connection that a back end keeps open, and a closed client can be used again."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest
from tests.contract.test_invalid_responses import WORLDS, client, world

from cloudtune.aio import AsyncClient
from cloudtune.optional import Closeable
from cloudtune.registry import BUILT_IN, backend_class

if TYPE_CHECKING:
    from cloudtune.client import Client

__all__ = ["client", "world"]  # fixtures


def connections(world: Any) -> int:
    """How many connections to the emulator are open on the client's side."""
    port = urlsplit(world.emulator.url).port
    return sum(bool(each.raddr) and each.raddr.port == port for each in psutil.Process().net_connections("tcp"))


def test_closing_leaves_no_connection(world: Any, client: Client) -> None:
    gc.disable()  # a connection that only the garbage collector closes is not closed
    try:
        with client:
            job = client.submit(world.spec())
            assert connections(world) > 0
        assert connections(world) == 0
    finally:
        gc.enable()
    client.close()
    assert job.snapshot().ref == job.ref
    asyncio.run(AsyncClient(client).close())
    assert connections(world) == 0


WITHOUT_CONNECTION = ("local", "ray", "slurm", "ssh")
"""Folders, programs, or a connection for each call."""


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in WITHOUT_CONNECTION])
def test_every_back_end_of_a_service_can_be_closed(name: str) -> None:
    assert issubclass(backend_class(name), Closeable)
    assert any(world.startswith(name) for world in WORLDS)
