"""moto's application for the service that the verified signature names. Nothing else of a request chooses it."""

from __future__ import annotations

from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from cloudtune_emulator.aws.moto_app import SERVICE


class Dispatcher(DomainDispatcherApplication):  # type: ignore[misc] # moto has no types of its own
    """moto's dispatcher without its guesses from hosts, paths and bodies, which reach its admin API."""

    def get_application(self, environ: dict[str, Any]) -> Any:
        """The application of one service."""
        service = environ[SERVICE]
        with self.lock:
            if service not in self.app_instances:
                self.app_instances[service] = self.create_app(service)
            return self.app_instances[service]
