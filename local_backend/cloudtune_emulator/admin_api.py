"""``/_emulator``: the admin API for tests. No vendor has it. It answers loopback only, whatever the server binds.

``Authorization: Bearer`` with the admin token (``CLOUDTUNE_EMULATOR_ADMIN_TOKEN`` of the printed environment) opens it.

GET ``store`` counts the stored resources; ``faults`` (GET, POST, DELETE), ``clock`` (GET, POST ``{"advance": s}`` or
``{"scale": n}``), ``script`` (GET, POST), GET ``requests``, GET ``runs`` (the specs that jobs are trained
with), POST ``deliver_delayed``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cloudtune_emulator.aws import moto_app
from cloudtune_emulator.azure import deployments
from cloudtune_emulator.engines import ScriptEngine
from cloudtune_emulator.faults import Fault
from cloudtune_emulator.http import ApiError, Reply, read_body
from cloudtune_emulator.job_timeline import Script
from cloudtune_emulator.settlement import settle

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from cloudtune_emulator.app import App
    from cloudtune_emulator.context import EmulatorContext

TOKEN_VARIABLE = "CLOUDTUNE_EMULATOR_ADMIN_TOKEN"  # noqa: S105 - a name
_PREFIX = "/_emulator"
_LARGEST = 1 << 20
_HERE = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def is_here(request: Request) -> bool:
    """Whether a request is for this API."""
    return request.path == _PREFIX or request.path.startswith(f"{_PREFIX}/")


def serve(app: App, request: Request) -> Reply:
    """Answer it. Raises ApiError."""
    if request.remote_addr not in _HERE:
        raise ApiError(403, "The admin API is reachable from the emulator's own machine only.")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not app.context.opens(token, app.context.settings.admin_token):
        raise ApiError(401, f"{_PREFIX} needs the admin token: Authorization: Bearer ${TOKEN_VARIABLE}")
    name = request.path.removeprefix(_PREFIX).strip("/")
    handler = _HANDLERS.get((request.method, name))
    if handler is None:
        raise ApiError(404, f"The admin API has no {request.method} {request.path}; there are: {', '.join(_names())}.")
    settle(app.context, app.context.clock.now())
    try:
        body = msgspec.json.decode(read_body(request, _LARGEST) or b"{}")
        if not isinstance(body, dict) and handler is not _add_faults:
            raise ValueError("the body must be a JSON object")  # noqa: TRY301 - reported as a 400
        return Reply(body=handler(app, body))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ApiError(400, f"Invalid request: {error}") from error


def census(context: EmulatorContext) -> dict[str, Any]:
    """The number of resources of each kind, read from the store; jobs also by status."""
    kept = {f"{kind}s": context.store.count(kind) for kind in ("job", "upload", "part")}
    files = context.store.all("file")
    jobs = context.store.all("job")
    words = Counter(context.status(job, context.clock.now()).word for job in jobs)
    return kept | {
        "files": sum(file["purpose"] != "fine-tune-results" for file in files),
        "result_files": sum(file["purpose"] == "fine-tune-results" for file in files),
        "jobs_by_status": dict(words),
        "file_names": dict(Counter(file["filename"] for file in files if file["purpose"] != "fine-tune-results")),
        "deployments": len(deployments.standing(context, context.clock.now())),
        "workspace_jobs": context.store.count("mljob"),
        "blobs": context.store.count("blob"),
        "late_requests": context.faults.waiting,
        "bedrock": {f"{kind}s": context.store.count(kind, "bedrock") for kind in _BEDROCK},
        "sagemaker": {name: _standing(context, kind) for kind, name in _SAGEMAKER.items()},
        "s3": moto_app.contents(context.aws),
    }  # fmt: skip


def _standing(context: EmulatorContext, kind: str) -> int:
    """The number of resources of a kind, without those whose deletion has ended."""
    now, wait = context.clock.now(), context.settings.deploying_s
    return sum(one.get("deleting") is None or now < one["deleting"] + wait for one in context.store.all(kind))


_SAGEMAKER = {
    "training_job": "training_jobs", "sm_model": "models", "sm_config": "endpoint_configs", "sm_endpoint": "endpoints",
    "sm_component": "inference_components", "package_group": "model_package_groups", "package": "model_packages",
}  # fmt: skip
_BEDROCK = ("job", "custom_model", "custom_deployment", "provisioned", "import", "imported_model")


def _store(app: App, body: Any) -> Any:
    return census(app.context)


def _faults(app: App, body: Any) -> Any:
    return {"faults": [msgspec.to_builtins(fault) for fault in app.context.faults.armed]}


def _add_faults(app: App, body: Any) -> Any:
    for fault in msgspec.convert(body if isinstance(body, list) else [body], list[Fault]):
        app.context.faults.add(fault)
    return _faults(app, body)


def _heal(app: App, body: Any) -> Any:
    app.context.faults.clear()
    return _faults(app, body)


def _clock(app: App, body: Any) -> Any:
    clock = app.context.clock
    return {"now": clock.now(), "date": clock.date().isoformat(), "scale": clock.scale}


def _set_clock(app: App, body: Any) -> Any:
    given = msgspec.convert(body, dict[Literal["advance", "scale"], float])
    if "scale" in given:
        app.context.clock.scale = given["scale"]
    if "advance" in given:
        settle(app.context, app.context.clock.advance(given["advance"]))
    return _clock(app, body)


def _script(app: App, body: Any) -> Any:
    return msgspec.to_builtins(_scripted(app).script)


def _set_script(app: App, body: Any) -> Any:
    engine = _scripted(app)
    engine.script = msgspec.convert(msgspec.to_builtins(engine.script) | body, Script)
    return _script(app, body)


def _scripted(app: App) -> ScriptEngine:
    if not isinstance(app.context.engine, ScriptEngine):
        raise ValueError("the train engine runs these jobs; they have no script")  # noqa: TRY004 - reported as a 400
    return app.context.engine


def _runs(app: App, body: Any) -> Any:
    from cloudtune_emulator.train_engine import TrainEngine

    if not isinstance(app.context.engine, TrainEngine):
        raise ValueError("the script engine runs these jobs; nothing is trained")  # noqa: TRY004 - reported as a 400
    return {"runs": app.context.engine.runs()}


def _requests(app: App, body: Any) -> Any:
    return {"requests": list(app.seen)}


def _deliver_delayed(app: App, body: Any) -> Any:
    return {"delivered": app.deliver_delayed()}


_HANDLERS = {
    ("GET", "store"): _store,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _add_faults,
    ("DELETE", "faults"): _heal,
    ("GET", "clock"): _clock,
    ("POST", "clock"): _set_clock,
    ("GET", "script"): _script,
    ("POST", "script"): _set_script,
    ("GET", "requests"): _requests,
    ("GET", "runs"): _runs,
    ("POST", "deliver_delayed"): _deliver_delayed,
}


def _names() -> list[str]:
    return [f"{method} {_PREFIX}/{name}" for method, name in _HANDLERS]
