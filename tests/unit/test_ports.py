"""The port of a process group stays free for the group, and only for it."""

from __future__ import annotations

import socket

import pytest

from cloudtune_trainer.ports import hold_port


def test_a_held_port_is_given_to_no_other_program() -> None:
    with hold_port() as held, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(held.getsockname())


def test_the_group_can_listen_on_a_held_port() -> None:
    with hold_port() as held, socket.socket() as store:
        store.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch.distributed does
        store.bind(("", held.getsockname()[1]))
        store.listen()
        socket.create_connection(held.getsockname()).close()
