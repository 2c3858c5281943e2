"""The limits of the emulator's HTTP server on clients, and its error responses."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.emulator.callers import Caller
from tests.emulator.raw_http import HANG_S, ask, connect, head, read_all, read_answers, status
from tests.emulator.signing import signed_headers

from cloudtune_emulator import Emulator, Settings, http
from cloudtune_emulator.aws import payload
from cloudtune_emulator.http_server import Limits
from cloudtune_emulator.wsgi_bridge import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import urllib3

MB = 1 << 20
JOBS = "/v1/fine_tuning/jobs"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture
def hasty() -> Iterator[Emulator]:
    """Short patience, few threads."""
    pace = Pace(idle_s=0.3, grace_s=0.6, drain_s=0.3, write_s=1)
    limits = Limits(head_s=0.5, keep_alive_s=0.5, connections=40, threads=4, pace=pace)
    with Emulator(Settings(), scale=0, limits=limits) as emulator:
        yield emulator


@pytest.fixture
def key(emulator: Emulator) -> str:
    return emulator.settings.api_key


@pytest.mark.parametrize(
    "lines",
    [
        (CHUNKED, "Content-Length: 5"),
        ("Content-Length: 5", CHUNKED),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: -5",),
        ("Content-Length: +5",),
        ("Content-Length: 5x",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked, chunked",),
        ("Transfer-Encoding: xchunked",),
        ("A: \x00",),
        ("A: b\rc",),
        ("A B: c",),
        (": c",),
        ("no colon",),
        ("Host: other",),
        ("A: " + "x" * 100_000,),
        tuple(f"A{number}: x" for number in range(250)),
    ],
    ids=lambda lines: lines[0][:30],
)
def test_heads_that_are_no_http_are_refused(emulator: Emulator, key: str, lines: tuple[str, ...]) -> None:
    with connect(emulator) as channel:
        channel.sendall(head("POST", JOBS, *lines, key=key) + b"5\r\nhello\r\n0\r\n\r\n" + head("GET", JOBS, key=key))
        answer = read_all(channel)  # until the server closes
    assert status(answer) in (400, 431, 501)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not emulator.requests


@pytest.mark.parametrize(
    "chunks",
    [
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5 5\r\nhello\r\n",
        b"G\r\nhello\r\n",
        b"\r\nhello\r\n",
        b"5\nhello\n0\r\n\r\n",
        b"F" * 21 + b"\r\nhello",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5;" + b"x" * 600_000 + b"\r\nhello\r\n",
        b"0\r\nA: " + b"x" * 600_000 + b"\r\n\r\n",
        b"0\r\nbad trailer\r\n\r\n",
    ],
    ids=lambda chunks: str(chunks[:20]),
)
def test_chunks_that_are_none_are_refused(emulator: Emulator, key: str, chunks: bytes) -> None:
    with connect(emulator) as channel:
        channel.sendall(head("POST", JOBS, CHUNKED, key=key) + chunks)
        assert status(read_all(channel)) == 400
    assert not emulator.requests


def test_an_announced_chunk_takes_no_memory(hasty: Emulator) -> None:
    before = psutil.Process().memory_info().rss
    key = hasty.settings.api_key
    answer = ask(hasty, head("POST", JOBS, CHUNKED, key=key) + b"FFFFFFFFFFFFFFF\r\n{")
    assert status(answer) == 408
    assert psutil.Process().memory_info().rss - before < 50 * MB


def test_a_body_is_limited_by_what_is_read(emulator: Emulator, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST_JSON", MB)
    chunk = b"%x\r\n" % MB + b" " * MB + b"\r\n"
    answer = ask(emulator, head("POST", JOBS, CHUNKED, key=key) + chunk + chunk + b"0\r\n\r\n")
    assert status(answer) == 413
    answer = ask(emulator, head("POST", JOBS, f"Content-Length: {2 * MB}", "Expect: 100-continue", key=key))
    assert status(answer) == 413
    assert b"connection: close" in answer


def bad_key(emulator: Emulator) -> list[tuple[str, bytes, int]]:
    """A request of each API, with a wrong key."""
    settings = emulator.settings
    account = f"/subscriptions/{settings.subscription}/resourceGroups/{settings.resource_group}/providers/Microsoft."
    length = ("Content-Length: 1000", "Expect: 100-continue")
    return [
        ("openai", head("POST", JOBS, *length, key="no"), 401),
        (
            "openai upload",
            head("POST", "/v1/files", "Content-Type: multipart/form-data; boundary=b", *length, key="no"),
            401,
        ),
        ("azure", head("POST", "/openai/v1/files", *length, key="no"), 401),
        ("azure versioned", head("POST", "/openai/files?api-version=1", *length, key="no"), 401),
        (
            "management",
            head(
                "PUT",
                f"{account}CognitiveServices/accounts/{settings.account}/deployments/d?api-version=1",
                *length,
                key="no",
            ),
            401,
        ),
        (
            "workspace",
            head("PUT", f"{account}MachineLearningServices/workspaces/w/jobs/j?api-version=1", *length, key="no"),
            401,
        ),
        ("blobs", head("PUT", f"/blobs/{settings.account}/c/b", *length, key="no"), 403),
        ("bedrock", head("POST", "/model/a.b/invoke", *length, key="no"), 403),
        ("admin", head("POST", "/_emulator/faults", *length, key="no"), 401),
        ("s3, secret", badly_signed(emulator, "s3", "PUT", f"/{settings.aws_bucket}/k", secret_key="no"), 403),
        ("s3, key id", badly_signed(emulator, "s3", "PUT", f"/{settings.aws_bucket}/k", access_key="AKIANO"), 403),
        ("sagemaker", badly_signed(emulator, "sagemaker", "POST", "/", access_key="AKIANO"), 403),
        ("sts", badly_signed(emulator, "sts", "POST", "/", access_key="AKIANO"), 403),
    ]


def badly_signed(emulator: Emulator, service: str, method: str, path: str, **changes: str) -> bytes:
    """A signed request's head. Only S3 has the body's hash in a header; elsewhere the signature needs the body."""
    url = f"http://localhost{path}"
    signed = signed_headers(emulator, method, url, service=service, data=b"x" * 1000, **changes)
    reported = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Length: 1000", "Expect: 100-continue"]
    return "\r\n".join([*reported, *(f"{name}: {value}" for name, value in signed.items()), "", ""]).encode()


def test_a_wrong_key_is_refused_before_the_body(emulator: Emulator) -> None:
    emulator.faults.add("server_error")
    for name, sent, wanted in bad_key(emulator):
        answer = ask(emulator, sent)  # no byte of the body is sent, and none is asked for
        assert status(answer) == wanted, (name, answer)
        assert b"100 Continue" not in answer
    assert len(emulator.faults.armed) == 1  # it waits for a request that has a key


@pytest.mark.parametrize("service", ["sagemaker", "sts", "logs"])
def test_a_body_read_for_its_signature_is_limited(
    emulator: Emulator, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signatures of all services except S3 cover a hash that no header contains."""
    monkeypatch.setattr(payload, "LARGEST_JSON", MB)
    signed = signed_headers(emulator, "POST", "http://localhost/", service=service, secret_key="no")
    chunk = b"%x\r\n" % MB + b" " * MB + b"\r\n"
    reported = [CHUNKED, *(f"{name}: {value}" for name, value in signed.items() if name != "Authorization")]
    sent = head("POST", "/", *reported).replace(b"Bearer no", signed["Authorization"].encode())
    assert status(ask(emulator, sent + chunk + chunk + b"0\r\n\r\n")) == 413


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("faults", b"1"),
        ("faults", b"[1]"),
        ("faults", b"null"),
        ("clock", b"[]"),
        ("clock", b'{"advance": "x"}'),
        ("clock", b'{"other": 1}'),
        ("clock", b"\xff"),
        ("script", b"[1]"),
        ("script", b'{"steps": {}}'),
        ("deliver_delayed", b"[]"),
        ("deliver_delayed", b"[" * 100_000),
    ],
    ids=str,
)
def test_the_admin_api_refuses_bodies_of_other_types(emulator: Emulator, name: str, body: bytes) -> None:
    lines = (f"Content-Length: {len(body)}",)
    sent = head("POST", f"/_emulator/{name}", *lines, key=emulator.settings.admin_token)
    assert status(ask(emulator, sent + body)) == 400


def test_the_admin_api_limits_bodies(emulator: Emulator) -> None:
    sent = head("POST", "/_emulator/deliver_delayed", f"Content-Length: {2 * MB}", key=emulator.settings.admin_token)
    assert status(ask(emulator, sent + b" " * 2 * MB)) == 413


def test_a_refused_body_is_drained_only_so_far(hasty: Emulator) -> None:
    with connect(hasty) as channel:
        channel.sendall(head("POST", JOBS, "Content-Length: 1000000000000", key="no") + b"x" * 1000)
        assert status(read_all(channel)) == 401


def test_the_right_key_is_asked_for_the_body(emulator: Emulator, key: str) -> None:
    with connect(emulator) as channel:
        channel.sendall(head("POST", JOBS, "Content-Length: 2", "Expect: 100-continue", key=key))
        assert read_answers(channel, 1).startswith(b"HTTP/1.1 100 ")
        channel.sendall(b"{}")
        assert status(read_answers(channel, 1)) == 400


def test_pipelined_requests_are_answered_in_order(emulator: Emulator, key: str) -> None:
    paths = ["/v1/models", "/v1/files", "/v1/nothing", JOBS]
    sent = b"".join(head("GET", path, key=key) for path in paths[:2])
    sent += (
        head("POST", JOBS, "Content-Length: 2", key=key) + b"{}" + head("GET", paths[2], "Connection: close", key=key)
    )
    with connect(emulator) as channel:
        channel.sendall(sent)
        answer = read_all(channel)
    assert [int(found) for found in re.findall(rb"HTTP/1.1 (\d+) ", answer)] == [200, 200, 400, 404]


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nA: ", head("GET", JOBS)[:-2]], ids=str)
def test_half_a_head_is_closed_after_a_while(hasty: Emulator, sent: bytes) -> None:
    with connect(hasty) as channel:
        channel.sendall(sent)
        assert read_all(channel) == b""


def test_a_trickle_of_headers_does_not_prolong_it(hasty: Emulator) -> None:
    with connect(hasty) as channel:
        ends, closed = time.monotonic() + HANG_S, False
        while not closed and time.monotonic() < ends:
            try:
                channel.sendall(b"G")
                closed = channel.recv(1, 64) == b""  # MSG_DONTWAIT
            except BlockingIOError:
                time.sleep(0.05)
            except ConnectionError:
                closed = True
        assert closed


def test_a_trickle_of_a_body_is_given_up(hasty: Emulator) -> None:
    with connect(hasty) as channel:
        channel.sendall(head("POST", JOBS, "Content-Length: 1000", key=hasty.settings.api_key))
        answer, ends = b"", time.monotonic() + HANG_S
        while not answer and time.monotonic() < ends:
            try:
                channel.sendall(b" ")
                answer = channel.recv(1000, 64)
            except BlockingIOError:
                time.sleep(0.05)
        assert status(answer) == 408


def test_others_are_served_beside_half_open_connections(hasty: Emulator) -> None:
    """Ten times as many as there are threads, and more than may be connected."""
    held = [connect(hasty) for _ in range(60)]
    for channel in held:
        with suppress(ConnectionError):  # those that had to make room
            channel.sendall(b"GET / HTTP/1.1\r\n")
    assert status(ask(hasty, head("GET", "/v1/models", key=hasty.settings.api_key))) == 200
    assert hasty.http.connections <= 40
    for channel in held:
        channel.close()


def test_an_idle_connection_is_closed(hasty: Emulator) -> None:
    with connect(hasty) as channel:
        channel.sendall(head("GET", "/v1/models", key=hasty.settings.api_key))
        assert read_all(channel).startswith(b"HTTP/1.1 200")


def calls(caller: Caller) -> dict[str, Callable[[], urllib3.BaseHTTPResponse]]:
    return {
        "openai": lambda: caller.openai("GET", "/v1/models"),
        "error": lambda: caller.openai("GET", "/v1/nothing"),
        "s3": lambda: caller.aws("s3", "GET", "/"),
        "sts": lambda: caller.aws(
            "sts",
            "POST",
            "/",
            b"Action=GetCallerIdentity&Version=2011-06-15",
            Content_Type="application/x-www-form-urlencoded",
        ),
        "bedrock": lambda: caller.aws("bedrock", "GET", "/custom-models"),
        "blob": lambda: caller.blob("GET", "/blobs/emulated/c/b"),
    }


def test_the_date_is_told_once_and_by_the_emulators_clock(emulator: Emulator) -> None:
    emulator.faults.add("clock_skew", seconds=-3600 * 24 * 365)
    for name, call in calls(Caller(emulator)).items():
        dates = call().headers.getlist("date")
        assert len(dates) == 1, name
        year = time.gmtime(emulator.clock.now() - 3600 * 24 * 365).tm_year
        assert f" {year} " in dates[0], name


def test_versions_of_an_object_of_parts_are_listed(emulator: Emulator) -> None:
    caller, bucket = Caller(emulator), emulator.settings.aws_bucket
    begun = caller.aws("s3", "POST", f"/{bucket}/k?uploads").data.decode()
    upload = begun.partition("<UploadId>")[2].partition("</UploadId>")[0]
    part = caller.aws("s3", "PUT", f"/{bucket}/k?partNumber=1&uploadId={upload}", b"content")
    joined = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{part.headers['etag']}</ETag></Part>"
    ended = caller.aws("s3", "POST", f"/{bucket}/k?uploadId={upload}", f"{joined}</CompleteMultipartUpload>".encode())
    assert ended.status == 200, ended.data
    caller.aws("s3", "PUT", f"/{bucket}/k2", b"plain")
    listed = caller.aws("s3", "GET", f"/{bucket}?versions")
    assert listed.status == 200, listed.data
    assert listed.data.count(b"<Version>") == 2, listed.data


SERVICES = (
    "application-autoscaling",
    "bedrock",
    "bedrock-runtime",
    "iam",
    "kms",
    "logs",
    "pricing",
    "s3",
    "sagemaker",
    "sagemaker-runtime",
    "service-quotas",
    "sts",
)


@pytest.mark.parametrize("service", SERVICES)
def test_every_pattern_of_the_models_is_understood(service: str) -> None:
    from cloudtune_emulator.aws import shapes

    model: Any = shapes.model(service)
    for name in model.shape_names:
        if pattern := model.shape_for(name).metadata.get("pattern"):
            shapes.compiled(pattern)
