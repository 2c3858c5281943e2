"""TLS for clients that send tokens over TLS only, such as azure-core: a certificate authority for one server.

Its key never leaves the server's memory. The certificate for clients to trust is a file beside the store.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

_LASTS = timedelta(days=30)


def context(host: str, trusted: Path) -> ssl.SSLContext:
    """A server-side TLS context for that host. Writes the CA certificate for clients to ``trusted``."""
    authority = trustme.CA(organization_name="cloudtune emulator, this machine only", path_length=0)
    authority.cert_pem.write_to_path(str(trusted))
    certificate = authority.issue_cert(*{host, "localhost"}, not_after=datetime.now(UTC) + _LASTS)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate.configure_cert(made)
    return made
