"""Whatever is sent to Bedrock's paths, the answer is the service's: no fault of the emulator's own."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from tests.emulator.signing import signed_headers

from cloudtune_emulator.aws import buckets, shapes
from cloudtune_emulator.bedrock.routes import CONTROL, RUNTIME

if TYPE_CHECKING:
    from cloudtune_emulator import Emulator

ROLE = "arn:aws:iam::123456789012:role/cloudtune-emulated"
ODD: list[Any] = [
    None, "", "x", "a_b", "é" * 70, "s3://cloudtune-emulated/k", "s3://", ROLE, "amazon.nova-lite-v1:0:300k", 0, -1,
    1e308, True, [], [None], [{}], {}, {"x": 1}, {"s3Uri": "s3://nobody/k"}, {"s3Uri": None},
    "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-lite-v1:0:300k/abcdefghijkl",
]  # fmt: skip
QUERIES = ["", "?maxResults=x", "?nextToken=%ff", "?maxResults=-1", "?sortOrder=Up", "?nameContains=", "?statusEquals="]
PATHS = ["x", "a%2Fb", "%", "%00", "..", "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Acustom-model%2Fx%2Fy", "é"]


def send(emulator: Emulator, pool: urllib3.PoolManager, method: str, path: str, body: Any = b"") -> Any:
    """Send a signed request; urllib3 normalizes paths, and so the normalized one is signed."""
    url, data = str(urllib3.util.parse_url(emulator.url + path)), body.encode() if isinstance(body, str) else body
    headers = signed_headers(emulator, method, url, service="bedrock", data=data)
    return pool.request(method, url, body=data, headers=headers)


def made(shape: Any, rng: random.Random) -> Any:
    """Something that is like what the shape wants, more often than not."""
    if rng.random() < 0.25:
        return rng.choice(ODD)
    match shape.type_name:
        case "structure":
            wanted = {name for name in shape.members if name in shape.required_members or rng.random() < 0.3}
            return {name: made(shape.members[name], rng) for name in wanted}
        case "list":
            return [made(shape.member, rng) for _ in range(rng.randint(0, 3))]
        case "map":
            return {"epochCount": made(shape.value, rng)}
        case "string":
            return rng.choice(shape.enum) if shape.enum else rng.choice([one for one in ODD if isinstance(one, str)])
        case "integer" | "long" | "float" | "double":
            return rng.choice([0, 1, 2, -1, 10**12])
        case "boolean":
            return rng.random() < 0.5
    return rng.choice(ODD)


@pytest.mark.parametrize("service", ["bedrock", "bedrock-runtime"])
def test_odd_requests_are_answered_in_the_services_words(emulator: Emulator, service: str) -> None:
    rng = random.Random(service)
    pool = urllib3.PoolManager()
    handled = CONTROL if service == "bedrock" else RUNTIME
    seen = set()
    for name in sorted(handled) * 12:
        operation = shapes.model(service).operation_model(name)
        path = operation.http["requestUri"].partition("?")[0]
        while "{" in path:
            head, _, rest = path.partition("{")
            path = head + rng.choice(PATHS) + rest.partition("}")[2]
        query = rng.choice(["", "?maxResults=x", "?nextToken=%ff", "?maxResults=-1", "?sortOrder=Up", "?nameContains="])
        body: Any = json.dumps(made(operation.input_shape, rng))
        if rng.random() < 0.15:
            body = rng.choice([b"", b"{", b"[]", b"null", b"\xff\xfe", b"1"])
        method = operation.http["method"]
        answer = send(emulator, pool, method, f"{path}{query}", body)
        text = f"{method} {path}{query} {body!r}: {answer.status} {answer.data!r}"
        seen.add(answer.status)
        assert answer.status < 500 or answer.status == 501, text
        if answer.status >= 400:
            assert answer.headers.get("x-amzn-errortype"), text
            assert json.loads(answer.data)["message"], text
    assert {200, 400} <= seen or service == "bedrock-runtime"


S3 = "s3://cloudtune-emulated"
GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "jobs": ("/model-customization-jobs", {
        "jobName": "j", "customModelName": "m", "roleArn": ROLE, "baseModelIdentifier": "amazon.nova-lite-v1:0:300k",
        "trainingDataConfig": {"s3Uri": f"{S3}/rows.jsonl"}, "outputDataConfig": {"s3Uri": f"{S3}/out"},
        "hyperParameters": {"epochCount": "2"}, "customizationType": "FINE_TUNING", "clientRequestToken": "t",
        "validationDataConfig": {"validators": [{"s3Uri": f"{S3}/rows.jsonl"}]},
        "jobTags": [{"key": "a", "value": "b"}], "customizationConfig": {"rftConfig": {"graderConfig": {}}},
    }),
    "imports": ("/model-import-jobs", {
        "jobName": "i", "importedModelName": "m", "roleArn": ROLE, "clientRequestToken": "t",
        "modelDataSource": {"s3DataSource": {"s3Uri": f"{S3}/weights"}},
    }),
    "deployments": ("/model-customization/custom-model-deployments", {
        "modelDeploymentName": "d", "modelArn": str(ODD[-1]), "description": "x", "clientRequestToken": "t",
    }),
    "throughput": ("/provisioned-model-throughput", {
        "provisionedModelName": "p", "modelId": "amazon.nova-lite-v1:0:300k", "modelUnits": 1,
        "commitmentDuration": "OneMonth",
    }),
    "converse": ("/model/amazon.nova-lite-v1:0/converse", {
        "messages": [{"role": "user", "content": [{"text": "q"}]}], "system": [{"text": "s"}],
        "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "topP": 0.5, "stopSequences": ["x"]},
    }),
    "invoke": ("/model/amazon.nova-lite-v1:0/invoke", {
        "messages": [{"role": "user", "content": [{"text": "q"}]}], "system": [{"text": "s"}],
        "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "stopSequences": ["x"]},
    }),
    "llama": ("/model/meta.llama3-3-70b-instruct-v1:0/invoke-with-response-stream", {
        "prompt": "q", "max_gen_len": 5, "temperature": 0.5, "top_p": 0.5,
    }),
}  # fmt: skip


def spoilt(value: Any, rng: random.Random) -> Any:
    """The value with one place in it changed, wherever."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        if rng.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        return value | {key: spoilt(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        return [spoilt(value[0], rng), *value[1:]]
    return rng.choice(ODD)


@pytest.mark.parametrize("kind", GOOD)
def test_good_requests_with_an_odd_place(emulator: Emulator, kind: str) -> None:
    row = {"schemaVersion": "v", "messages": [{"role": "user", "content": [{"text": "q"}]},
                                              {"role": "assistant", "content": [{"text": "a"}]}]}  # fmt: skip
    context, rng, pool = emulator.context, random.Random(kind), urllib3.PoolManager()
    for key, data in {"rows.jsonl": json.dumps(row).encode() * 9, "weights/config.json": b"{}", "k": b"\xff"}.items():
        buckets.put(context, buckets.Place("cloudtune-emulated", key), data)
    path, good = GOOD[kind]
    for _ in range(150):
        body = spoilt(good, rng)
        if isinstance(body, dict) and "clientRequestToken" in good and rng.random() < 0.8:
            body = {name: item for name, item in body.items() if name not in ("clientRequestToken", "jobName")}
            body |= {"jobName": f"j{rng.random()}"} if "jobName" in good else {}
        answer = send(emulator, pool, "POST", path, json.dumps(body))
        text = f"{path} {body!r}: {answer.status} {answer.data!r}"
        assert answer.status < 500, text
        assert answer.status < 400 or answer.headers.get("x-amzn-errortype"), text
    for method, listed in (("GET", path), ("GET", "/custom-models"), ("GET", "/imported-models")):
        emulator.clock.advance(100)
        if kind in ("jobs", "imports", "deployments"):
            assert send(emulator, pool, method, listed).status == 200
