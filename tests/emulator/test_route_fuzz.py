"""Every route of every emulated API, with values that no client sends: refused in the API's own words, never a 500."""

from __future__ import annotations

import json
import logging
import random
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from tests.emulator.callers import Caller

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.aws import moto_proxy, price_list, quotas, shapes
from cloudtune_emulator.azure.routes import ROUTES as MANAGEMENT
from cloudtune_emulator.bedrock.routes import CONTROL, RUNTIME
from cloudtune_emulator.openai.routes import ROUTES
from cloudtune_emulator.sagemaker import autoscaling, mlflow
from cloudtune_emulator.sagemaker.routes import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import urllib3

BUCKET, ROLE = "cloudtune-emulated", "arn:aws:iam::123456789012:role/cloudtune-emulated"
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    10**12,
    10**30,
    1e308,
    "",
    "x",
    " ",
    "a_b",
    "1",
    "-1",
    "é" * 70,
    "\x00",
    "\r\nX: y",
    "../../etc/passwd",
    "%00",
    "{}",
    "x" * 5000,
    [],
    [None],
    [[]],
    [{}],
    {},
    {"x": 1},
    {"": None},
    {"type": {}},
    "gpt-4.1-mini-2025-04-14",
    "amazon.nova-lite-v1:0:300k",
    f"s3://{BUCKET}/k",
    "s3://",
    ROLE,
    "FineTuning",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-lite-v1:0:300k/abcdefghijkl",
    "arn:aws:sagemaker:us-east-1:123456789012:model/m",
    "9999999999999999999999",
    "2026-13-45T99:99:99Z",
]
DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000
BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"\xff\xfe",
    b'{"a": "\xff"}',
    b'{"a": "\\ud800"}',
    DEEP,
    b'{"a": 1e999}',
    b'{"model": NaN}',
    b"{}",
]
SEGMENTS = ["x", "a%2Fb", "%", "%00", "..", "%FF%FE", "%C3%A9", "x" * 2000, "%0d%0aX:%20y", "-1", "~", "arn%3Aaws%3Ax"]
VALUES = [
    "",
    "x",
    "-1",
    "0",
    "1",
    "1.5",
    "99999999999999999999",
    "%FF",
    "%00",
    "%0d%0aX:%20y",
    "%F0%9F%98%80",
    "null",
    "[]",
    "a&a=b",
    "true",
    "1_0",
    "%D9%A1",
    "desc",
    "MQ==",
    "x" * 1000,
]
PARAMETERS = ["limit", "after", "order", "purpose", "metadata[a]", "metadata", "api-version", "api%FFversion", "tag"]
CHAT = {"model": "gpt-4.1-mini-2025-04-14", "messages": [{"role": "user", "content": "question 1"}]}
GRADER = {"type": "lambda", "lambda": {"function": "arn:aws:lambda:us-east-1:123456789012:function:f"}}
JOB = {
    "model": "gpt-4.1-mini-2025-04-14",
    "training_file": "file-x",
    "validation_file": "file-x",
    "suffix": "s",
    "seed": 1,
    "metadata": {"a": "b"},
    "integrations": [{"type": "wandb", "wandb": {"project": "p"}}],
    "hyperparameters": {"n_epochs": 1},
    "method": {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 1}},
        "reinforcement": {"grader": GRADER, "hyperparameters": {"reasoning_effort": "low"}},
    },
}
GOOD: dict[str, dict[str, Any]] = {
    "jobs.create": JOB,
    "uploads.create": {
        "filename": "a.jsonl",
        "mime_type": "x",
        "bytes": 5,
        "purpose": "fine-tune",
        "expires_after": {"anchor": "created_at", "seconds": 3600},
    },
    "uploads.complete": {"part_ids": ["part_x"], "md5": "x"},
    "chat.create": CHAT
    | {
        "stream": False,
        "stream_options": {"include_usage": True},
        "n": 1,
        "seed": 1,
        "stop": ["x"],
        "max_tokens": 5,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "auto",
        "temperature": 1,
        "response_format": {"type": "text"},
    },
    "responses.create": {
        "model": CHAT["model"],
        "input": [{"role": "user", "content": "question 1"}],
        "instructions": "x",
        "text": {"format": {"type": "text"}},
        "metadata": {},
    },
    "deployments.create": {
        "sku": {"name": "Standard", "capacity": 1},
        "tags": {"a": "b"},
        "properties": {
            "model": {"name": CHAT["model"], "format": "OpenAI", "version": "1"},
            "versionUpgradeOption": "x",
        },
    },
    "mljobs.create": {
        "properties": {
            "jobType": "FineTuning",
            "tags": {"a": "b"},
            "outputs": {"o": {"uri": "x"}},
            "fineTuningDetails": {"model": {"uri": "x"}, "trainingData": {"uri": "x"}, "taskType": "ChatCompletion"},
        }
    },
}
INVOKED = [
    {"messages": CHAT["messages"], "max_tokens": 5, "temperature": 1, "top_p": 1, "seed": 1},
    {"inputs": "question 1", "parameters": {"max_new_tokens": 5, "do_sample": True, "details": True}},
]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(Settings(deploying_s=0), scale=0) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def caller(emulator: Emulator) -> Caller:
    return Caller(emulator)


def mutated(value: Any, rng: random.Random, rate: float = 0.15) -> Any:
    """The value with some of its parts replaced, left out or made odd."""
    if rng.random() < rate:
        return rng.choice(ODD)
    if isinstance(value, dict):
        kept = {name: mutated(item, rng, rate) for name, item in value.items() if rng.random() > 0.1}
        return kept | ({rng.choice(["x", "", "type", "\x00"]): rng.choice(ODD)} if rng.random() < 0.1 else {})
    if isinstance(value, list):
        return [mutated(item, rng, rate) for item in value] * rng.choice([1, 1, 1, 2])
    return value


def shaped(shape: Any, rng: random.Random, depth: int = 0) -> Any:
    """Something like what the shape wants, more often than not."""
    if rng.random() < 0.12 or depth > 8:
        return rng.choice(ODD)
    match shape.type_name:
        case "structure":
            wanted = {name for name in shape.members if name in shape.required_members or rng.random() < 0.3}
            return {name: shaped(shape.members[name], rng, depth + 1) for name in sorted(wanted)}
        case "list":
            return [shaped(shape.member, rng, depth + 1) for _ in range(rng.randint(0, 2))]
        case "map":
            return {rng.choice(["epochCount", "a", ""]): shaped(shape.value, rng, depth + 1)}
        case "string":
            words = ["m", "x-1", ROLE, f"s3://{BUCKET}/k", *(one for one in ODD if isinstance(one, str))]
            return rng.choice(shape.enum) if shape.enum else rng.choice(words)
        case "integer" | "long" | "float" | "double":
            return rng.choice([0, 1, 2, 10, -1, 10**12])
        case "boolean":
            return rng.random() < 0.5
        case "timestamp":
            return rng.choice([0, 1.5, 1e12, -1e18, "2026-01-01T00:00:00Z", "x"])
    return rng.choice(ODD)


def query(rng: random.Random, *names: str) -> str:
    count = rng.choice([0, 1, 1, 2, 3])
    return "&".join(f"{rng.choice(names)}={rng.choice(VALUES)}" for _ in range(count) if names)


def body_of(good: Any, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return rng.choice(BODIES)
    return json.dumps(good).encode()


def filled(template: str, rng: random.Random, known: dict[str, list[str]]) -> str:
    """A route's path with a value in the place of each name."""
    return re.sub(r"<(\w+)>", lambda found: rng.choice([*known.get(found[1], []) * 3, *SEGMENTS]), template)


def is_told(answer: urllib3.BaseHTTPResponse, kind: str) -> bool:
    """Whether an error is in the shape that this API's clients read."""
    text = answer.data
    if kind in ("s3", "query", "blob"):
        return b"<Code>" in text or not text  # HEAD has no body
    body = json.loads(text)
    match kind:
        case "openai" | "arm":
            return isinstance(body["error"]["message"], str)
        case "json" | "rest-json":
            return bool(answer.headers.get("x-amzn-errortype") or body.get("__type"))
        case "mlflow":
            return isinstance(body["error_code"], str)
    raise AssertionError(kind)


class Watch:
    """Collects what is wrong, so that one run shows all of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.seen: set[int] = set()
        self.faults: dict[str, str] = {}

    def look(self, requested: str, answer: urllib3.BaseHTTPResponse, kind: str) -> None:
        self.seen.add(answer.status)
        text = ""
        records = [one for one in self._caplog.records if one.exc_info]
        if answer.status >= 500 and answer.status != 501:
            text = str(answer.status)
        elif records:
            text = "logged"
        elif answer.status == 403 and b"signature" in answer.data and kind != "blob":
            text = "signature"
        elif answer.status >= 400:
            try:
                text = "" if is_told(answer, kind) else "shape"
            except (KeyError, TypeError, ValueError) as error:
                text = f"shape: {error!r}"
        if text:
            trace = ""
            if records and records[-1].exc_info and records[-1].exc_info[1]:
                error = records[-1].exc_info[1]
                frame = error.__traceback__
                while frame is not None and frame.tb_next is not None:
                    frame = frame.tb_next
                place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else ""
                trace = f" {error!r:.200} at {place}"
            self.faults.setdefault(f"{text}{trace}", f"{requested[:600]} -> {answer.data[:200]!r}")
        self._caplog.clear()

    def check(self) -> None:
        assert not self.faults, "\n".join(f"{fault}\n    {requested}" for fault, requested in self.faults.items())


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Watch:
    caplog.set_level(logging.ERROR)
    return Watch(caplog)


ROUNDS = [pytest.param(6, id="few"), pytest.param(300, id="many", marks=pytest.mark.soak)]


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("api", ["openai", "mantle", "azure", "azure-versioned"])
def test_openai_routes_refuse_odd_requests(caller: Caller, watch: Watch, api: str, rounds: int) -> None:
    rng = random.Random(f"{api}{rounds}")
    prefix = {"openai": "/v1", "mantle": "/v1", "azure": "/openai/v1", "azure-versioned": "/openai"}[api]
    call = {"openai": caller.openai, "mantle": caller.mantle}.get(api, caller.azure)
    file = form(call, f"{prefix}/files?api-version=1", [("purpose", "fine-tune")], "file", b'{"messages": []}')
    upload = call("POST", f"{prefix}/uploads?api-version=1", json.dumps(GOOD["uploads.create"]).encode())
    known = {"file": [json.loads(file.data)["id"]], "upload": [json.loads(upload.data)["id"]]}
    model = "openai.gpt-oss-20b" if api == "mantle" else str(JOB["model"])
    rows = [{"training_file": known["file"][0], "model": model}, {"training_file": known["file"][0]}]
    for _ in range(rounds):
        for method, template, name, _handler in ROUTES:
            path = f"{prefix}{filled(template, rng, known)}?api-version=1&{query(rng, *PARAMETERS)}"
            good = GOOD.get(name, {"x": 1})
            if name == "jobs.create":
                good = good | rng.choice(rows)
            sent = body_of(mutated(good, rng), rng) if method == "POST" else None
            headers = {"Content_Type": rng.choice(["application/json", "text/plain", "x", "é"])}
            if name in ("files.create", "uploads.part") and rng.random() < 0.8:
                answer = form(call, path, odd_fields(rng), rng.choice(["file", "data", "a[b]"]), b"x")
            else:
                answer = call(method, path, sent, **headers)
            if answer.status == 200 and name == "jobs.create":
                known.setdefault("job", []).append(json.loads(answer.data)["id"])
            watch.look(f"{method} {path} {sent!r}", answer, "openai")
    watch.check()
    assert {200, 400, 404} <= watch.seen


def odd_fields(rng: random.Random) -> list[tuple[str, str]]:
    names = ["purpose", "purpose[a]", "purpose[]", "expires_after", "expires_after[seconds]", "expires_after[]", "a[b"]
    return [(rng.choice(names), rng.choice(["fine-tune", "1", "x", "é"])) for _ in range(rng.randint(0, 5))]


def form(call: Any, path: str, fields: list[tuple[str, str]], file: str, content: bytes) -> urllib3.BaseHTTPResponse:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    parts.append(f'--b\r\nContent-Disposition: form-data; name="{file}"; filename="t.jsonl"\r\n\r\n')
    sent = "".join(parts).encode() + content + b"\r\n--b--\r\n"
    answer: urllib3.BaseHTTPResponse = call("POST", path, sent, Content_Type="multipart/form-data; boundary=b")
    return answer


@pytest.mark.parametrize("rounds", ROUNDS)
def test_management_routes_refuse_odd_requests(emulator: Emulator, caller: Caller, watch: Watch, rounds: int) -> None:
    rng, settings = random.Random(rounds), emulator.settings
    known = {
        "subscription": [settings.subscription] * 4,
        "group": [settings.resource_group] * 4,
        "deployment": ["d"],
        "account": [settings.account] * 4,
        "job": ["j"],
        "workspace": ["w"],
        "datastore": ["workspaceblobstore"],
    }
    for _ in range(rounds):
        for method, template, name, _handler in MANAGEMENT:
            path = f"{filled(template, rng, known)}?api-version=1&{query(rng, *PARAMETERS)}"
            sent = body_of(mutated(GOOD.get(name, {"x": 1}), rng), rng) if method in ("POST", "PUT") else None
            watch.look(f"{method} {path} {sent!r}", caller.management(method, path, sent), "arm")
    watch.check()
    assert {200, 400, 404} <= watch.seen


@pytest.mark.parametrize("rounds", ROUNDS)
def test_blob_routes_refuse_odd_requests(emulator: Emulator, caller: Caller, watch: Watch, rounds: int) -> None:
    rng = random.Random(rounds)
    root = f"/blobs/{emulator.settings.account}/c"
    sent = [
        b"",
        b"<",
        b"<a/>",
        b"<BlockList><Latest/></BlockList>",
        b"\xff",
        b"<BlockList><Latest>eA==</Latest></BlockList>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    ]
    for _ in range(rounds * 10):
        name = rng.choice(["x", "a/b", "a%20b", "%C3%A9", "%FF", "x" * 500])
        parts = rng.choice(
            ["", "?comp=block", "?comp=block&blockid=eA==", "?comp=blocklist", "?comp=x", "?blockid=%FF"]
        )
        method = rng.choice(["PUT", "PUT", "GET", "HEAD", "DELETE", "POST"])
        headers = {"x_ms_blob_type": "BlockBlob"} if rng.random() < 0 else {}
        body = rng.choice(sent) if method == "PUT" else None
        watch.look(
            f"{method} {name}{parts} {body!r}", caller.blob(method, f"{root}/{name}{parts}", body, **headers), "blob"
        )
    watch.check()
    assert {200, 201, 400, 404} <= watch.seen


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("service", ["bedrock", "bedrock-runtime"])
def test_bedrock_operations_refuse_odd_requests(caller: Caller, watch: Watch, service: str, rounds: int) -> None:
    rng = random.Random(f"{service}{rounds}")
    for _ in range(rounds):
        for name in sorted(CONTROL if service == "bedrock" else RUNTIME):
            operation = shapes.model(service).operation_model(name)
            path = operation.http["requestUri"].partition("?")[0]
            while "{" in path:
                head, _, rest = path.partition("{")
                path = head + rng.choice(SEGMENTS) + rest.partition("}")[2]
            members = list(operation.input_shape.members) if operation.input_shape else ["x"]
            path = f"{path}?{query(rng, *members, 'maxResults', 'nextToken')}"
            sent = body_of(shaped(operation.input_shape, rng), rng)
            answer = caller.aws("bedrock", operation.http["method"], path, sent)
            watch.look(f"{name} {path} {sent!r}", answer, "rest-json")
    watch.check()
    assert 400 in watch.seen


def targets() -> list[tuple[str, str, str]]:
    """Signing name, botocore's name and operation of everything that is answered by ``X-Amz-Target``."""
    own = [("sagemaker", "sagemaker", name) for name in OPERATIONS]
    own += [("application-autoscaling", "application-autoscaling", name) for name in autoscaling.OPERATIONS]
    own += [("servicequotas", "service-quotas", name.partition(".")[2]) for name in quotas.CALLS]
    own += [("pricing", "pricing", price_list.CALL.partition(".")[2])]
    own += [
        ("logs", "logs", name)
        for name in (
            "CreateLogGroup",
            "CreateLogStream",
            "PutLogEvents",
            "GetLogEvents",
            "DescribeLogStreams",
            "DescribeLogGroups",
            "FilterLogEvents",
        )
    ]
    own += [("kms", "kms", name) for name in ("CreateKey", "DescribeKey", "ListKeys", "Encrypt")]
    return sorted(own)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_json_operations_refuse_odd_requests(caller: Caller, watch: Watch, rounds: int) -> None:
    rng = random.Random(rounds)
    for _ in range(rounds):
        for signing, service, name in targets():
            model = shapes.model(service)
            sent = body_of(shaped(model.operation_model(name).input_shape, rng), rng)
            target = f"{model.metadata['targetPrefix']}.{name}"
            answer = caller.aws(
                signing, "POST", "/", sent, X_Amz_Target=target, Content_Type="application/x-amz-json-1.1"
            )
            watch.look(f"{service} {name} {sent!r}", answer, "json")
    watch.check()
    assert {200, 400} <= watch.seen


@pytest.mark.parametrize("rounds", ROUNDS)
def test_invoked_endpoints_refuse_odd_requests(caller: Caller, watch: Watch, rounds: int) -> None:
    rng = random.Random(rounds)
    served(caller)
    for number in range(rounds * 20):
        how = rng.choice(["invocations", "invocations-response-stream"])
        name = rng.choice(["e", "e", "e", "e", *SEGMENTS])
        sent = body_of(mutated(rng.choice(INVOKED), rng), rng)
        headers = {"X_Amzn_SageMaker_Inference_Component": rng.choice(["x", "é", ""])} if number % 9 == 0 else {}
        answer = caller.aws("sagemaker", "POST", f"/endpoints/{name}/{how}", sent, **headers)
        watch.look(f"{name} {how} {sent!r}", answer, "rest-json")
    watch.check()
    assert 200 in watch.seen


def served(caller: Caller) -> None:
    """An endpoint that answers."""
    container = {"Image": "i", "ModelDataUrl": f"s3://{BUCKET}/m.tar.gz"}
    variant = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.xlarge"}
    for name, body in (
        ("CreateModel", {"ModelName": "m", "ExecutionRoleArn": ROLE, "PrimaryContainer": container}),
        ("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": [variant]}),
        ("CreateEndpoint", {"EndpointName": "e", "EndpointConfigName": "c"}),
    ):
        caller.aws("sagemaker", "POST", "/", json.dumps(body).encode(), X_Amz_Target=f"SageMaker.{name}")


@pytest.mark.parametrize("rounds", ROUNDS)
def test_mlflow_calls_refuse_odd_requests(caller: Caller, watch: Watch, rounds: int) -> None:
    rng = random.Random(rounds)
    for _ in range(rounds * 4):
        for path in mlflow.CALLS:
            requested = f"{mlflow.PREFIX}{path}?{query(rng, 'run_id', 'metric_key', 'page_token', 'max_results')}"
            headers = {"x_mlflow_sm_tracking_server_arn": "a"} if rng.random() < 0.7 else {}
            answer = caller.aws("sagemaker-mlflow", "GET", requested, None, **headers)
            watch.look(f"{requested}", answer, "mlflow")
    watch.check()


S3_QUERY = sorted(
    {
        "max-keys",
        "max-parts",
        "max-uploads",
        "part-number-marker",
        "marker",
        "key-marker",
        "prefix",
        "delimiter",
        "continuation-token",
        "start-after",
        "encoding-type",
        "versionId",
        "partNumber",
        "uploadId",
        "version-id-marker",
        "fetch-owner",
        "response-content-type",
        "response-content-disposition",
        "upload-id-marker",
    }
)
S3_HEADERS: dict[str, list[str]] = {
    "Range": ["bytes=0-", "bytes=x", "bytes=9-1", "bytes=-99999999999999999999", "x"],
    "x-amz-copy-source": ["", "x", "/", f"{BUCKET}/k", f"{BUCKET}/%FF", f"{BUCKET}/k?versionId=x", "nobody/k"],
    "x-amz-copy-source-range": ["bytes=0-", "x"],
    "x-amz-tagging": ["a=b", "a", "%FF=%FF", "&&"],
    "x-amz-acl": ["private", "x"],
    "x-amz-storage-class": ["STANDARD", "x"],
    "If-None-Match": ["*", "x"],
    "If-Modified-Since": ["x", "Mon, 99 Foo"],
    "x-amz-checksum-crc32": ["x", "AAAAAA=="],
    "x-amz-checksum-sha256": ["", "%"],
    "x-amz-checksum-algorithm": ["X", "CRC32"],
    "Content-MD5": ["x"],
    "x-amz-meta-a": ["b", "é"],
    "x-amz-decoded-content-length": ["-1", "x", "5", "99999999999999999999"],
    "Content-Encoding": ["aws-chunked", "gzip"],
    "x-amz-object-attributes": ["ETag", "x"],
    "x-amz-server-side-encryption": ["aws:kms", "x"],
    "x-amz-object-lock-mode": ["X"],
    "Content-Type": ["x", "text/html"],
    "x-amz-trailer": ["x-amz-checksum-crc32", "x"],
    "x-amz-bucket-object-lock-enabled": ["x", "True"],
}
S3_BODIES = [
    b"",
    b"x",
    b"<",
    b"<a/>",
    b"\xff\xfe",
    b"<Delete/>",
    b"<Delete><Object><Key>k</Key></Object></Delete>",
    b"<CompleteMultipartUpload/>",
    b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber></Part></CompleteMultipartUpload>",
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>",
    b"<Tagging/>",
    b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>",
    b"<CreateBucketConfiguration/>",
    b"<VersioningConfiguration/>",
    b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    b"{}",
    b'{"Statement": 1}',
    b"<ServerSideEncryptionConfiguration/>",
    b"zz\r\nx",
    b"-5\r\nx\r\n",
    b"5;x=y\r\nabcde\r\n0\r\n\r\n",
    b"5\r\nab",
    b"FFFFFFFFFFFFFFFF\r\nx",
]


def s3_calls() -> list[tuple[str, str, str]]:
    """Method, level and the parameter that tells the operation."""
    found = [(method, "object", name) for method, name in moto_proxy._OBJECT]
    found += [(method, "bucket", name) for method, name in moto_proxy._BUCKET]
    return found + [(method, level, "") for level, plain in moto_proxy._PLAIN.items() for method in plain]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_s3_operations_refuse_odd_requests(caller: Caller, watch: Watch, rounds: int) -> None:
    rng = random.Random(rounds)
    caller.aws("s3", "PUT", f"/{BUCKET}/k", b"content")
    upload = begun(caller)
    for _ in range(rounds):
        for method, level, parameter in s3_calls():
            bucket = rng.choice([BUCKET, BUCKET, BUCKET, "nobody", "X_", "%FF", "a"])
            key = (
                f"/{rng.choice(['k', 'k', 'multi', 'a%2F..%2Fb', '%FF', '%00', 'x' * 1100])}"
                if level == "object"
                else ""
            )
            if (method, level, parameter) == ("DELETE", "bucket", ""):
                bucket = "nobody"
            given = f"{parameter}={rng.choice([upload, *VALUES])}" if parameter == "uploadId" else parameter
            if parameter == "partNumber":
                given = f"partNumber={rng.choice(VALUES)}&uploadId={rng.choice([upload, 'x', ''])}"
            requested = f"/{bucket}{key}?{given}&{query(rng, *S3_QUERY)}"
            headers = {name: rng.choice(values) for name, values in S3_HEADERS.items() if rng.random() < 0.08}
            sent = rng.choice(S3_BODIES) if method in ("PUT", "POST") else None
            watch.look(
                f"{method} {requested} {headers} {sent!r}", caller.aws("s3", method, requested, sent, **headers), "s3"
            )
    watch.check()
    assert {200, 400, 404} <= watch.seen


def begun(caller: Caller) -> str:
    text = caller.aws("s3", "POST", f"/{BUCKET}/multi?uploads").data.decode()
    return text.partition("<UploadId>")[2].partition("</UploadId>")[0]


QUERIED = {
    "sts": ["GetCallerIdentity", "AssumeRole", "GetSessionToken"],
    "iam": ["GetRole", "ListRoles", "CreateRole", "SimulatePrincipalPolicy", "GetUser", "ListAttachedRolePolicies"],
}


@pytest.mark.parametrize("rounds", ROUNDS)
def test_query_operations_refuse_odd_requests(caller: Caller, watch: Watch, rounds: int) -> None:
    rng = random.Random(rounds)
    for _ in range(rounds * 2):
        for service, name in [(service, name) for service, names in QUERIED.items() for name in names]:
            shape = shapes.model(service).operation_model(name).input_shape
            members = [*(shape.members if shape else ()), "X", "ActionNames.member.1", "Policy.%FF"]
            pairs = [
                f"{member}={quote(str(rng.choice(['x', ROLE, '{}', '1', '-1', ''])))}"
                if rng.random() < 0.6
                else f"{member}={rng.choice(VALUES)}"
                for member in members
                if rng.random() < 0.7
            ]
            action = rng.choice([name, name, name, name, "Nothing", "%FF", ""])
            version = shapes.model(service).metadata["apiVersion"]
            sent = "&".join([f"Action={action}", f"Version={version}", *pairs]).encode()
            if rng.random() < 0.1:
                sent = rng.choice([b"\xff\xfe", b"", b"Action", b"=&=&=", sent + b"\xff"])
            answer = caller.aws(service, "POST", "/", sent, Content_Type="application/x-www-form-urlencoded")
            watch.look(f"{service} {sent!r}", answer, "query")
    watch.check()


UNUSABLE = [
    ("bedrock", "/listTagsForResource?resourceARN=1", {"Content-Type": "application/json"}, b'{"resourceARN": []}'),
    ("logs", "/", {"X-Amz-Target": "Logs_20140328.DescribeLogStreams", "Content-Type": "application/x-amz-json-1.1"},
     b'{"descending": null, "limit": 1, "logGroupName": "a", "orderBy": "LogStreamName"}'),
    ("kms", "/", {"X-Amz-Target": "TrentService.CreateKey", "Content-Type": "application/x-amz-json-1.1"}, b""),
    ("iam", "/", {"Content-Type": "application/x-www-form-urlencoded"},
     b"Action=ListRoles&Version=2010-05-08&Marker=1.5&MaxItems=1"),
]  # fmt: skip


@pytest.mark.parametrize(("service", "path", "headers", "body"), UNUSABLE, ids=[one[0] for one in UNUSABLE])
def test_a_value_that_cannot_be_used_is_the_callers_fault(
    caller: Caller, service: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    if service == "logs":
        group = {"X_Amz_Target": "Logs_20140328.CreateLogGroup", "Content_Type": "application/x-amz-json-1.1"}
        made = caller.aws("logs", "POST", "/", b'{"logGroupName": "a"}', **group)
        assert made.status == 200 or b"AlreadyExists" in made.data
    answer = caller.aws(
        service, "POST", path, body, **{name.replace("-", "_"): value for name, value in headers.items()}
    )
    assert answer.status == 400, answer.data
    assert b"Validation" in answer.data + answer.headers.get("x-amzn-ErrorType", "").encode()


def test_an_upload_that_is_not_there_is_named_so_beside_any_parameter(caller: Caller) -> None:
    body = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>a</ETag></Part></CompleteMultipartUpload>"
    for query_ in ("uploadId=x", "restore&uploadId=x", "uploads=&uploadId=x"):
        answer = caller.aws("s3", "POST", f"/{BUCKET}/k?{query_}", body)
        assert answer.status in (400, 404), (query_, answer.data)
        assert b"cannot use" not in answer.data, (query_, answer.data)


@pytest.mark.parametrize("given", ["bytes", "0-1", "bytes=a-b", "bytes=1=2", "lines=1-2"])
def test_a_range_that_cannot_be_read_gives_the_whole_object(caller: Caller, given: str) -> None:
    caller.aws("s3", "PUT", f"/{BUCKET}/k", b"content")
    answer = caller.aws("s3", "GET", f"/{BUCKET}/k", Range=given)
    assert (answer.status, answer.data) == (200, b"content")
    assert caller.aws("s3", "GET", f"/{BUCKET}/k", Range="bytes=1-2").data == b"on"
