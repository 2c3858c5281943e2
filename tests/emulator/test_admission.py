"""No request without credentials, and no web page, reaches any route of any API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.emulator.routes import Route, credentials, every_route, send, shared_key, signed

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.admission import is_allowed_host

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC = {"workspace.discovery"}
"""Routes that tell the server's own URL and nothing else; azure-ai-ml calls it without a token."""
PAGE_HEADERS: dict[str, dict[str, str]] = {
    "origin": {"Origin": "https://evil.example"},
    "origin of another port": {"Origin": "http://127.0.0.1:1"},
    "null origin": {"Origin": "null"},
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "same-site": {"Sec-Fetch-Site": "same-site"},
    "same-origin": {"Sec-Fetch-Site": "same-origin"},
    "rebound host": {"Host": "rebind.example:8787"},
    "websocket": {"Connection": "Upgrade", "Upgrade": "websocket"},
}


@pytest.fixture(scope="module")
def closed() -> Iterator[Emulator]:
    """An emulator with an object, a file and a blob's place that a successful request would show or change."""
    with Emulator(Settings(aws_account="510987654321"), scale=0) as emulator:
        emulator.context.aws.open()
        yield emulator


@pytest.fixture(scope="module")
def routes(closed: Emulator) -> list[Route]:
    return list(every_route(closed.settings))


def state(emulator: Emulator) -> tuple[Any, Any]:
    return emulator.census(), sum(seen["acted"] for seen in emulator.requests)


def wrong_credentials(emulator: Emulator, route: Route) -> Iterator[dict[str, str]]:
    """None, another's, those of the other APIs, and signatures that do not fit."""
    settings = emulator.settings
    yield {}
    for key in ("", "wrong", settings.aws_secret):
        yield {"Authorization": f"Bearer {key}"}
        yield {"api-key": key}
    others = dict.fromkeys(("azure", "arm", "admin"), settings.api_key) | {"openai": settings.azure_key}
    if route.api in others:
        yield {"Authorization": f"Bearer {others[route.api]}"}
    yield {"Authorization": "Basic Og=="}
    if route.api == "blob":
        yield shared_key(emulator, route, key="d3Jvbmc=")
    elif route.api not in others:
        yield signed(emulator, route, secret_key="wrong")
        yield signed(emulator, route, access_key="AKIAWRONG00000000000")


def test_every_route_refuses_wrong_credentials(closed: Emulator, routes: list[Route]) -> None:
    before = state(closed)
    opened = [
        f"{route.api} {route.method} {route.path} {headers}: {answer.status_code}"
        for route in routes
        if route.name not in PUBLIC
        for headers in wrong_credentials(closed, route)
        if (answer := send(closed, route, headers)).status_code not in (401, 403)
    ]
    assert not opened
    assert state(closed) == before


@pytest.mark.parametrize("kind", PAGE_HEADERS)
def test_every_route_refuses_web_pages(closed: Emulator, routes: list[Route], kind: str) -> None:
    before = state(closed)
    status = 421 if kind == "rebound host" else 403
    for route in routes:
        answer = send(closed, route, credentials(closed, route) | PAGE_HEADERS[kind])
        assert answer.status_code == status, route
    assert state(closed) == before


def test_no_preflight_is_granted_on_any_route(closed: Emulator, routes: list[Route]) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT",
                 "Access-Control-Request-Headers": "authorization", "Sec-Fetch-Site": "cross-site"}  # fmt: skip
    for route in routes:
        answer = send(closed, route._replace(method="OPTIONS"), preflight)
        assert answer.status_code == 403, route


def test_right_credentials_reach_every_route() -> None:
    """The control: the requests above are real ones, and fail for their credentials alone."""
    with Emulator(Settings(aws_account="610987654321"), scale=0) as emulator:
        routes = list(every_route(emulator.settings))
        answers = [(route, send(emulator, route, credentials(emulator, route))) for route in routes]
        reached = {seen["call"] for seen in emulator.requests}
    for route, answer in answers:
        assert b"Invalid URL" not in answer.data, route
        assert answer.status_code not in (401, 403, 500), (route, answer.data)
        if route.api not in ("admin", "s3", "blob"):
            assert route.name in reached, route
        _check_headers(route, answer)


def test_every_answer_isolates_its_content(closed: Emulator, routes: list[Route]) -> None:
    for route in routes:
        for headers in ({}, {"Origin": "https://evil.example"}, {"Host": "rebind.example"}):
            _check_headers(route, send(closed, route, headers))


def _check_headers(route: Route, answer: Any) -> None:
    opened = [name for name in answer.headers.keys() if name.lower().startswith("access-control-")]  # noqa: SIM118
    assert not opened, route
    for name, value in (("Content-Security-Policy", "sandbox"), ("X-Content-Type-Options", "nosniff"),
                        ("Cross-Origin-Resource-Policy", "same-origin")):  # fmt: skip
        assert [one.partition(";")[0] for one in answer.headers.getlist(name)] == [value], route


@pytest.mark.parametrize(
    ("header", "bound", "allowed"),
    [
        ("127.0.0.1:8787", "127.0.0.1", True), ("localhost", "127.0.0.1", True), ("LOCALHOST:1", "127.0.0.1", True),
        ("[::1]:8787", "127.0.0.1", True), ("127.9.9.9", "127.0.0.1", True), ("10.0.0.5:8787", "10.0.0.5", True),
        ("host.example", "host.example", True), ("10.0.0.5", "0.0.0.0", True), ("[fd00::1]:80", "::", True),
        ("rebind.example", "127.0.0.1", False), ("10.0.0.5", "127.0.0.1", False), ("0.0.0.0", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False), ("evil.localhost", "127.0.0.1", False), ("", "::1", False),
        ("127.0.0.1@evil.example", "127.0.0.1", False), ("127.0.0.1,evil.example", "127.0.0.1", False),
        ("127.0.0.1:80:80", "127.0.0.1", False), ("rebind.example", "0.0.0.0", False), ("localhost:", "::1", False),
    ],
)  # fmt: skip
def test_hosts_are_names_of_the_server(header: str, bound: str, allowed: bool) -> None:
    assert is_allowed_host(header, bound) is allowed


def test_the_admin_api_refuses_other_machines(closed: Emulator) -> None:
    route = Route("admin", "GET store", "GET", "/_emulator/store", {})
    assert send(closed, route, credentials(closed, route)).status_code == 200
    assert send(closed, route, credentials(closed, route), sender="10.0.0.9").status_code == 403
