"""A small part of MLflow's REST API: the run to which a serverless job writes its metrics, and their history.

In SageMaker's MLflow a header names the resource, and signatures are for ``sagemaker`` or ``sagemaker-mlflow``
(sagemaker-mlflow 0.5.0, ``mlflow_sagemaker_request_header_provider.py``, ``auth_provider.py``); the API is MLflow's own
(mlflow.org/docs/latest/api_reference/rest-api.html, seen 2026-11-21). The values are those of the job's log; the names
of AWS's recipes are not documented.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import ApiError, Reply, whole
from cloudtune_emulator.sagemaker import jobs, naming
from cloudtune_emulator.sagemaker.create_job import KIND

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call
    from cloudtune_emulator.route import Handler
    from cloudtune_emulator.sagemaker.job_timeline import Seen

PREFIX = "/api/2.0/mlflow/"
_ARN_HEADERS = ("x-mlflow-sm-tracking-server-arn", "x-sm-mlflow-app-arn")
_MOST = 25000


class MlflowError(ApiError):
    """An error in MLflow's shape."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, message, code=code)
        self.body = {"error_code": code, "message": message}


def dressed(error: ApiError) -> ApiError:
    """The emulator's own error (a fault, a limit) in MLflow's shape."""
    if isinstance(error, MlflowError):
        return error
    code = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "REQUEST_LIMIT_EXCEEDED"}.get(error.status)
    found = MlflowError(error.status, code or "INTERNAL_ERROR", str(error))
    found.headers = error.headers
    return found


def get_run(context: EmulatorContext, call: Call) -> Reply:
    """runs/get: the run with the last value of each metric."""
    job, seen = _asked(context, call)
    latest = {point["key"]: point for point in _points(context, job, seen)}
    config = job["request"]["MlflowConfig"]
    status = {"Completed": "FINISHED", "Failed": "FAILED", "Stopped": "KILLED"}.get(seen.now.status, "RUNNING")
    info = {
        "run_id": jobs.run_id(job), "run_uuid": jobs.run_id(job), "run_name": config.get("MlflowRunName") or job["id"],
        "experiment_id": jobs.experiment_id(job), "status": status, "lifecycle_stage": "active",
        "start_time": int(naming.timestamp(context, job["created"]) * 1000),
    }  # fmt: skip
    return Reply(body={"run": {"info": info, "data": {"metrics": list(latest.values()), "params": [], "tags": []}}})


def get_history(context: EmulatorContext, call: Call) -> Reply:
    """metrics/get-history: every value of one metric."""
    job, seen = _asked(context, call)
    points = [point for point in _points(context, job, seen) if point["key"] == call.query.get("metric_key")]
    try:
        start = whole(call.query.get("page_token"), "page_token", 0, least=0, most=1 << 31)
        most = whole(call.query.get("max_results"), "max_results", _MOST, least=1, most=_MOST)
    except ApiError as error:
        raise MlflowError(400, "INVALID_PARAMETER_VALUE", str(error)) from error
    body: dict[str, Any] = {"metrics": points[start : start + most]}
    if start + most < len(points):
        body["next_page_token"] = str(start + most)
    return Reply(body=body)


def _asked(context: EmulatorContext, call: Call) -> tuple[dict[str, Any], Seen]:
    arn = next((call.headers[name] for name in _ARN_HEADERS if name in call.headers), "")
    if not arn:
        raise MlflowError(403, "PERMISSION_DENIED", "The request names no MLflow resource.")
    run = call.query.get("run_id", "")
    for job in context.store.all(KIND, naming.shelf(call)):
        config = job["request"].get("MlflowConfig") or {}
        if config.get("MlflowResourceArn") == arn and jobs.run_id(job) == run:
            seen = context.sagemaker.seen(context, job, call.now)
            if seen.has_trained:
                return job, seen
    raise MlflowError(404, "RESOURCE_DOES_NOT_EXIST", f"Run '{run}' not found")


def _points(context: EmulatorContext, job: dict[str, Any], seen: Seen) -> list[dict[str, Any]]:
    """Each metric of the log. If a line has no step, the training reports are counted."""
    steps, epochs = job["course"]["steps"], float(job["course"]["epochs"])
    found: list[dict[str, Any]] = []
    count = 0
    for at, line in seen.lines:
        figures = _figures(line)
        count += "loss" in figures
        epoch = figures.pop("epoch", None)
        step = count if epoch is None else round(epoch / epochs * steps)
        moment = int(naming.timestamp(context, at) * 1000)
        found += [
            {"key": key, "value": float(value), "timestamp": moment, "step": step, "run_id": jobs.run_id(job)}
            for key, value in figures.items()
        ]
    return found


def _figures(line: str) -> dict[str, float]:
    """The metrics of a line of the log, which are printed as a dict. Other lines have none."""
    try:
        found = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    is_dict = isinstance(found, dict)
    return {str(key): value for key, value in found.items() if isinstance(value, int | float)} if is_dict else {}


def describe_app(context: EmulatorContext, call: Call) -> Reply:
    """DescribeMlflowApp: every app exists, as jobs may name any."""
    arn = call.body["Arn"]
    return Reply(body={"Arn": arn, "Name": naming.tail(arn), "Status": "Created"})


def describe_server(context: EmulatorContext, call: Call) -> Reply:
    """DescribeMlflowTrackingServer: every server exists, and is never stopped."""
    name = call.body["TrackingServerName"]
    return Reply(body={
        "TrackingServerArn": naming.arn(context, call, "mlflow-tracking-server", name), "TrackingServerName": name,
        "TrackingServerStatus": "Created", "IsActive": "Active", "TrackingServerUrl": call.base,
    })  # fmt: skip


CALLS: dict[str, tuple[str, Handler]] = {
    "runs/get": ("MlflowGetRun", get_run),
    "metrics/get-history": ("MlflowGetMetricHistory", get_history),
}
"""Path -> name, by which faults are selected, and handler."""
