"""The rendezvous port of a process group. Standard library only."""

from __future__ import annotations

import socket


def hold_port(address: str = "127.0.0.1") -> socket.socket:
    """Bind a free port of that address and hold it, so that no other program gets it meanwhile.

    The group starts seconds later, once it has imported torch. It can still listen there: both sockets allow the
    address to be reused, and this one does not listen. Close it when the group has ended.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, 0))
    return held
