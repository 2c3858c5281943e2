"""Rows on S3, read by the real SDK over loopback HTTP."""

from __future__ import annotations

import gzip
import io
import json
import sys
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from cloudtune import plugins
from cloudtune.cli.main import cli
from cloudtune.client import Client
from cloudtune.data.checks.check_cache import Verdicts
from cloudtune.data.checks.preparing import prepare
from cloudtune.data.read import remote
from cloudtune.errors import BackendNotInstalled, DataError, Unavailable
from cloudtune.plugins import PluginTable
from cloudtune.spec import Data, JobSpec
from cloudtune.testing import FakeClock
from cloudtune.testing.contract.no_io import no_io
from cloudtune_providers.openai.backend import OpenAIBackend
from cloudtune_providers.openai.options import OpenAIOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.plan import Plan, PlanRequest

pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")
ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(200)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def s3(endpoint: str) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        remote._store.cache_clear()
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="rows")
        yield client
    remote._store.cache_clear()


def put(s3: Any, key: str, body: bytes) -> str:
    s3.put_object(Bucket="rows", Key=key, Body=body)
    return f"s3://rows/{key}"


def data_of(*paths: str, **more: object) -> Data:
    return Data.model_validate({"train": list(paths), **more})


def problem_of(*paths: str) -> Any:
    with pytest.raises(DataError) as refused:
        prepare(data_of(*paths))
    return refused.value.problems[0]


def test_the_same_rows_are_the_same_wherever_they_lie(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    here = prepare(data_of(str(tmp_path / "rows.jsonl"))).fingerprint
    assert prepare(data_of(put(s3, "a/rows.jsonl", LINES))).fingerprint == here
    assert prepare(data_of(put(s3, "a/rows.jsonl.gz", gzip.compress(LINES)))).fingerprint == here
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), table)
    assert prepare(data_of(put(s3, "a/rows.parquet", table.getvalue()))).fingerprint == here
    packed = pyarrow.compress(LINES, codec="zstd", asbytes=True)
    assert prepare(data_of(put(s3, "a/rows.jsonl.zst", packed))).fingerprint == here


def test_a_plan_opens_remote_rows_in_cores_pass_only(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bpe_openai")
    backend = OpenAIBackend(OpenAIOptions(), clock=FakeClock(datetime(2026, 11, 21, tzinfo=UTC)))
    plan = backend.plan

    def pure(request: PlanRequest) -> Plan:
        with no_io():
            return plan(request)

    monkeypatch.setattr(backend, "plan", pure)
    document = {"name": "far", "model": "gpt-4.1-mini-2025-04-14", "hyperparameters": {"epochs": 1}}
    spec = JobSpec.model_validate(document | {"data": {"train": put(s3, "plan/rows.jsonl", LINES)}})
    planned = Client(backend, ledger=f"sqlite:///{tmp_path}/ledger.db").plan(spec)
    tokens = planned.data.splits["train"].tokens
    assert tokens is not None
    assert tokens.counted_by == "o200k_base"
    assert planned.cost is not None
    assert planned.cost.usd == round(tokens.most * 5 / 1e6, 4)


def test_patterns_name_several_objects(s3: Any) -> None:
    for number in range(5):
        part = "".join(json.dumps(row) + "\n" for row in ROWS[number * 40 : number * 40 + 40])
        put(s3, f"parts/{number}.jsonl", part.encode())
    put(s3, "parts/deep/er/5.jsonl", LINES)
    put(s3, "parts/readme.txt", b"no rows")
    assert [file.uri[-9:] for file in remote.find("s3://rows/parts/*.jsonl")] == [f"s/{n}.jsonl" for n in range(5)]
    assert len(remote.find("s3://rows/parts/**/*.jsonl")) == 6
    assert [file.uri[-7] for file in remote.find("s3://rows/parts/[1-3].jsonl")] == ["1", "2", "3"]
    assert prepare(data_of("s3://rows/parts/*.jsonl")).splits["train"].rows == 200


def test_faults_are_told_with_the_uri_and_the_line(s3: Any) -> None:
    bad = put(s3, "bad.jsonl", LINES + b'{"prompt": "x"\n')
    problem = problem_of(bad)
    assert (problem.code, problem.file, problem.line) == ("invalid_json", bad, 201)
    assert (problem_of("s3://rows/nowhere.jsonl").code, problem_of("s3://other/x.jsonl").code) == ("no_file", "no_file")
    assert problem_of("s3://rows/*.csv").code == "no_file"
    assert problem_of(put(s3, "empty.jsonl", b"")).code == "empty_file"
    assert problem_of(put(s3, "broken.jsonl.gz", b"\x1f\x8b no gzip")).code == "broken_gzip"
    assert problem_of("s3:///x").code == "no_file"
    scheme = problem_of("gs://rows/x.jsonl")
    assert scheme.code == "unknown_scheme"
    assert "s3://" in scheme.fix


def test_verdicts_know_an_object_by_its_version(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, known = data_of(put(s3, "rows.jsonl", LINES)), Verdicts(tmp_path / "verdicts")
    opened: list[str] = []
    real = remote.opened
    monkeypatch.setattr(remote, "opened", lambda file: (opened.append(file.uri), real(file))[1])
    report = known.prepare(data)
    assert known.prepare(data) == report
    assert len(opened) == 1
    put(s3, "rows.jsonl", LINES.replace(b'answer 7"', b'answer 8"'))
    assert known.prepare(data).fingerprint != report.fingerprint
    assert len(opened) == 2


class Breaking:
    """S3, on a bad line: every body breaks, or ends, after a while."""

    def __init__(self, after: int, how: str) -> None:
        self.store: Any = remote.store_of("s3://rows")
        self.after, self.how, self.opens = after, how, 0

    def get(self, uri: str) -> remote.RemoteFile | None:
        return self.store.get(uri)  # type: ignore[no-any-return]

    def list(self, prefix: str) -> Any:
        return self.store.list(prefix)

    def open(self, file: remote.RemoteFile, start: int) -> IO[bytes]:
        self.opens += 1
        if self.how == "refuses" and self.opens % 2:
            raise Unavailable("no answer")
        return _Breaking(self.store.open(file, start), self.after, self.how)  # type: ignore[return-value]


class _Breaking:
    def __init__(self, body: IO[bytes], after: int, how: str) -> None:
        self.body, self.left, self.how = body, after, how

    def read(self, size: int) -> bytes:
        if not self.left and self.how != "ends":
            raise Unavailable("connection reset")
        data = self.body.read(min(size, self.left))
        self.left -= len(data)
        return data

    def close(self) -> None:
        self.body.close()


@pytest.mark.parametrize("how", ["breaks", "ends", "refuses"])
def test_a_broken_connection_is_gone_on_with(s3: Any, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    uri = put(s3, "rows.jsonl", LINES)
    store = Breaking(3000, how)
    monkeypatch.setattr(remote, "store_of", lambda name: store)
    (file,) = remote.find(uri)
    clock = FakeClock()
    with remote.opened(file, clock) as stream:
        assert stream.read() == LINES
    assert store.opens >= len(LINES) // 3000


def test_a_line_that_gives_nothing_is_given_up(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put(s3, "rows.jsonl", LINES)
    store = Breaking(0, "ends")
    monkeypatch.setattr(remote, "store_of", lambda name: store)
    problem = problem_of(uri)
    assert (problem.code, problem.file) == ("cut_off", uri)
    assert store.opens == 5


def test_an_object_that_is_replaced_while_it_is_read_is_refused(s3: Any) -> None:
    uri = put(s3, "rows.jsonl", LINES)
    (file,) = remote.find(uri)
    put(s3, "rows.jsonl", LINES + LINES)
    with pytest.raises(DataError, match="replaced during the read"), remote.opened(file) as stream:
        stream.read()


def test_the_command_line_reads_uris(s3: Any, tmp_path: Path) -> None:
    uri = put(s3, "rows.jsonl", LINES)
    words = ["data", "convert", uri, "--to", "bedrock-converse", "-o", str(tmp_path / "out.jsonl"), "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == 200
    result = CliRunner().invoke(cli, ["data", "check", "s3://rows/gone.jsonl"])
    assert result.exit_code == 2
    assert "s3://rows/gone.jsonl: no such object" in result.output


def test_without_the_sdk_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    remote._store.cache_clear()
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(BackendNotInstalled, match="pip install") as refused:
        remote.find("s3://rows/a.jsonl")
    assert "pip install" in str(refused.value)
    problem = problem_of("s3://rows/a.jsonl")
    assert problem.code == "not_installed"
    assert "pip install" in problem.fix
    remote._store.cache_clear()


class OwnStore:
    """A third-party store."""

    def get(self, uri: str) -> remote.RemoteFile | None:
        return remote.RemoteFile(uri, len(LINES), "1") if uri == "own://rows.jsonl" else None

    def list(self, prefix: str) -> list[remote.RemoteFile]:
        return [remote.RemoteFile("own://rows.jsonl", len(LINES), "1")]

    def open(self, file: remote.RemoteFile, start: int) -> IO[bytes]:
        return io.BytesIO(LINES[start:])


def test_strangers_bring_stores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="own", value=f"{__name__}:OwnStore", group="cloudtune.sources")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == "cloudtune.sources" else [])
    monkeypatch.setattr(remote, "STORES", PluginTable("cloudtune.sources", {}))
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this())
    remote._store.cache_clear()
    assert prepare(data_of("own://rows.jsonl")).splits["train"].rows == 200
    assert prepare(data_of("own://*.jsonl")).splits["train"].rows == 200
    assert problem_of("own://gone.jsonl").code == "no_file"
    remote._store.cache_clear()


def _this() -> ModuleType:
    """This module, under the name that an entry point can be given."""
    module = ModuleType(__name__)
    module.OwnStore = OwnStore  # type: ignore[attr-defined]
    return module
