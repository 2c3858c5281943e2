"""Metrics of serverless jobs, which AWS's trainers write to SageMaker's MLflow: read by its REST API, without MLflow.

URLs, headers and signatures as in AWS's plugin (sagemaker-mlflow 0.5.0, ``mlflow_sagemaker_helpers.py``,
``auth.py``); the API is MLflow's own (mlflow.org/docs/latest/api_reference/rest-api.html: runs/get,
metrics/get-history). The trainers' names of metrics are not documented: names are passed on unchanged, except for the
split.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlencode

from cloudtune.errors import InvalidResponse
from cloudtune.state import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from botocore.exceptions import ClientError

    from cloudtune_providers.aws.clients import Clients

SERVER, APP = "mlflow-tracking-server", "mlflow-app"
EXPERIMENT = "cloudtune"
_HEADERS = {SERVER: "x-mlflow-sm-tracking-server-arn", APP: "x-sm-mlflow-app-arn"}
_SIGNED_AS = {SERVER: "sagemaker-mlflow", APP: "sagemaker"}
_HOSTS = {SERVER: "https://{region}.experiments.sagemaker.aws", APP: "https://mlflow.sagemaker.{region}.app.aws"}
_API = "/api/2.0/mlflow"
_PAGE = 1000
_SIDE = re.compile(r"(?P<side>train|training|eval|val|valid|validation|test)[/_.](?P<name>.+)")
_SIDES: dict[str, Literal["train", "validation", "test"]] = {
    "train": "train", "training": "train", "eval": "validation", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test",
}  # fmt: skip
_LOSS = "total_loss"
"""The name of the loss in AWS's SDK (sagemaker-train 1.27.0, ``common_utils/constants.py``)."""


class _Point(NamedTuple):
    at_ms: int
    step: int
    split: Literal["train", "validation", "test"]
    name: str
    value: float


class Curves:
    """Reads the runs of any MLflow resource that the credentials can read."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def metrics(self, job: Mapping[str, Any], after: str | None) -> list[Metric]:
        """Return the metrics after that cursor, by time; none before the job has started its run."""
        run = (job.get("MlflowDetails") or {}).get("MlflowRunId")
        if not run:
            return []
        arn = str(job["MlflowConfig"]["MlflowResourceArn"])
        response = self._get(arn, "runs/get", {"run_id": run})
        names = [str(entry["key"]) for entry in response["run"].get("data", {}).get("metrics") or ()]
        points = sorted(point for name in names for point in self._history(arn, str(run), name))
        return [metric for metric in _grouped(points) if after is None or _place(metric.cursor) > _place(after)]

    def _history(self, arn: str, run: str, name: str) -> Iterator[_Point]:
        more: dict[str, str] = {}
        split, plain = side_of(name)
        while True:
            query = {"run_id": run, "metric_key": name, "max_results": str(_PAGE), **more}
            page = self._get(arn, "metrics/get-history", query)
            for entry in page.get("metrics") or ():
                at, step = int(entry["timestamp"]), int(entry.get("step") or 0)
                yield _Point(at, step, split, plain, float(entry["value"]))
            if not page.get("next_page_token"):
                return
            more = {"page_token": str(page["next_page_token"])}

    def _get(self, arn: str, what: str, query: Mapping[str, str]) -> dict[str, Any]:
        """One signed request; its errors are translated like those of every other call."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.httpsession import URLLib3Session

        kind, region = kind_of(arn), arn.split(":")[3]
        address = self._clients.address("sagemaker") or _HOSTS[kind].format(region=region)
        url = f"{address.rstrip('/')}{_API}/{what}?{urlencode(query)}"
        request = AWSRequest(method="GET", url=url, headers={_HEADERS[kind]: arn})
        with self._clients.asking(f"MLflow's {what} of {arn.rpartition('/')[2]}"):
            SigV4Auth(self._clients.credentials(), _SIGNED_AS[kind], region).add_auth(request)
            with closing(URLLib3Session(timeout=self._clients.timeout)) as session:
                reply = session.send(request.prepare())
            body = _read(reply.content)
            if reply.status_code >= 300:
                raise _refused(reply.status_code, dict(reply.headers), body, what)
        if body is None:
            raise InvalidResponse(f"MLflow's response to {what} is not JSON")
        return body


def kind_of(arn: str) -> str:
    """Whether the ARN is an app's or a tracking server's."""
    return APP if f":{APP}/" in arn else SERVER


def side_of(name: str) -> tuple[Literal["train", "validation", "test"], str]:
    """``eval_loss`` -> validation, loss; names without a split are of training."""
    found = _SIDE.fullmatch(name)
    side, plain = (_SIDES[found["side"]], found["name"]) if found else ("train", name)
    return side, "loss" if plain == _LOSS else plain


def _grouped(points: Sequence[_Point]) -> Iterator[Metric]:
    """Values that were written together are one report."""
    groups: dict[tuple[int, int, Literal["train", "validation", "test"]], dict[str, float]] = {}
    for point in points:
        groups.setdefault((point.at_ms, point.step, point.split), {})[point.name] = point.value
    for (at, step, split), values in groups.items():
        yield Metric(
            cursor=f"{at}.{step}.{split}", step=step, values=values, split=split,
            time=datetime.fromtimestamp(at / 1000, UTC),
        )  # fmt: skip


def _place(cursor: str) -> tuple[int, int, str]:
    at, _, rest = cursor.partition(".")
    step, _, split = rest.partition(".")
    return (int(at), int(step), split) if at.isdigit() and step.isdigit() else (0, 0, "")


def _read(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _refused(status: int, headers: Mapping[str, str], body: Mapping[str, Any] | None, what: str) -> ClientError:
    from botocore.exceptions import ClientError

    document = body or {}
    code = str(document.get("error_code") or document.get("__type") or status)
    error = {"Code": code, "Message": str(document.get("message") or document.get("Message") or f"status {status}")}
    lower = {name.lower(): value for name, value in headers.items()}
    answer = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": lower}}
    refusal: ClientError = ClientError(answer, f"Mlflow {what}")
    return refusal
