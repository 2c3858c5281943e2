"""moto's choice of a service for a request, remembered: moto reads its own folder for every one."""

from __future__ import annotations

from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication


class Dispatcher(DomainDispatcherApplication):  # type: ignore[misc] # moto has no types of its own
    """Which of moto's services answers for a host is the same each time."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._known: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        """moto's own answer, which it asks for under its lock."""
        if host not in self._known:
            self._known[host] = super().get_backend_for_host(host)
        return self._known[host]
