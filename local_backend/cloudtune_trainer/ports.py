"""The rendezvous port of a process group on one machine. Standard library only."""

from __future__ import annotations

import socket


def hold_port() -> socket.socket:
    """Bind a free loopback port and hold it, so that no other program gets it meanwhile.

    The group starts seconds later, once it has imported torch. It can still listen there: both sockets allow the
    address to be reused, and this one does not listen. Close it when the group has ended.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
