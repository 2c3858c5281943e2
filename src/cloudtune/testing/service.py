"""The scripted vendor's calls. Used only by `cloudtune.testing.vendor`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.testing.job_timeline import ENDED, Act, JobStatus, Script, Word, status_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.testing.faults import FaultKind
    from cloudtune.testing.vendor import ScriptedVendor

PAGE = 20
OWNER = "acct-1@test"
READS = frozenset(
    {"head_file", "get_file", "list_files", "list_parts", "get_job", "find_job", "list_jobs", "list_events",
     "list_metrics", "list_checkpoints", "get_model", "list_deployments", "whoami", "generate"}
)  # fmt: skip
"""Calls that change nothing."""


class VendorError(Exception):
    """The exception of the vendor's SDK: an HTTP status and a message, or status 0 without a response."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None, sent: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.sent = sent
        """False only if the request was certainly not sent."""


# -- files -----------------------------------------------------------------------------------------------------------


def put_file(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Store a file under a key; repeating it changes nothing."""
    key = body["name"]
    if not (found := vendor.store.rows("SELECT * FROM files WHERE name = ?", key)):
        return _keep_file(vendor, f"key/{key}", key, payload, now)
    return _file_view(vendor, found[0], now)


def post_file(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Create a new file, even if there is an equal one."""
    number = vendor.store.rows("SELECT count(*) AS n FROM files")[0]["n"] + 1
    return _keep_file(vendor, f"file-{number:06}", body["name"], payload, now)


def begin_upload(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Create an upload in parts."""
    with vendor.store.transaction() as db:
        return {"upload": db.execute("INSERT INTO uploads (name) VALUES (?)", (body["name"],)).lastrowid}


def put_part(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """One part; the same number again replaces it."""
    _open_upload(vendor, body)
    with vendor.store.transaction() as db:
        row = (body["upload"], body["number"], payload)
        db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", row)
    return {}


def list_parts(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Numbers of the parts that have arrived."""
    _open_upload(vendor, body)
    rows = vendor.store.rows("SELECT number FROM parts WHERE upload = ? ORDER BY number", body["upload"])
    return [row["number"] for row in rows]


def finish_upload(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Assemble the file from its parts. This removes the upload."""
    upload = _open_upload(vendor, body)
    parts = vendor.store.rows("SELECT payload FROM parts WHERE upload = ? ORDER BY number", body["upload"])
    with vendor.store.transaction() as db:
        db.execute("UPDATE uploads SET finished = 1 WHERE id = ?", (body["upload"],))
        db.execute("DELETE FROM parts WHERE upload = ?", (body["upload"],))
    return put_file(vendor, {"name": upload["name"]}, b"".join(part["payload"] for part in parts), now)


def head_file(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """The file under a key."""
    found = vendor.store.rows("SELECT * FROM files WHERE name = ?", body["name"])
    if not found:
        raise VendorError(404, f"no file {body['name']}")
    return _file_view(vendor, found[0], now)


def get_file(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """A file by id."""
    found = vendor.store.rows("SELECT * FROM files WHERE id = ?", body["id"])
    if not found:
        raise VendorError(404, f"no file {body['id']}")
    return _file_view(vendor, found[0], now)


def list_files(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """All files that are old enough to be listed, oldest first."""
    shown = vendor.store.rows("SELECT * FROM files WHERE created_at <= ? ORDER BY seq", now - vendor.list_lag_s)
    return [_file_view(vendor, row, now) for row in shown]


def _keep_file(vendor: ScriptedVendor, name_id: str, name: str, payload: bytes, now: float) -> Any:
    row = (name_id, name, len(payload), hashlib.sha256(payload).hexdigest(), now)
    with vendor.store.transaction() as db:
        db.execute("INSERT INTO files (id, name, bytes, sha256, created_at) VALUES (?, ?, ?, ?, ?)", row)
    return _file_view(vendor, vendor.store.rows("SELECT * FROM files WHERE id = ?", name_id)[0], now)


def _file_view(vendor: ScriptedVendor, row: dict[str, Any], now: float) -> dict[str, Any]:
    status = "processed" if now >= row["created_at"] + vendor.processing_s else "processing"
    view = {name: row[name] for name in ("id", "name", "bytes", "created_at")}
    if vendor.personality != "neither":  # as on some real services, a file's hash is not returned
        view["sha256"] = row["sha256"]
    return view | {"status": "error" if row["fault"] else status, "message": row["fault"] or ""}


def _open_upload(vendor: ScriptedVendor, body: dict[str, Any]) -> dict[str, Any]:
    found = vendor.store.rows("SELECT * FROM uploads WHERE id = ? AND NOT finished", body["upload"])
    if not found:
        raise VendorError(404, f"no upload {body['upload']}")
    return found[0]


# -- jobs ------------------------------------------------------------------------------------------------------------


def create_job(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Create a job, unless the personality finds an existing one."""
    for file in body["files"].values():
        if get_file(vendor, {"id": file}, b"", now)["status"] != "processed":
            raise VendorError(400, f"file {file} is not ready")
    if parent := body.get("parent"):
        _ended(vendor, parent, now)
    if vendor.personality == "token":
        found = vendor.store.rows("SELECT * FROM jobs WHERE token = ?", body.get("token") or "")
        if found and msgspec.json.decode(found[0]["body"]) != body:
            raise VendorError(409, "that token was used for another request")
        if found:
            return view_of(vendor, found[0], now)
    if vendor.personality == "unique_names" and vendor.store.rows("SELECT 1 FROM jobs WHERE name = ?", body["name"]):
        raise VendorError(409, f"a job of the name {body['name']} exists already")
    return view_of(vendor, _keep_job(vendor, body, now), now)


def _keep_job(vendor: ScriptedVendor, body: dict[str, Any], now: float) -> dict[str, Any]:
    script = _script(vendor.store.setting("script", Script()), body)
    with vendor.store.transaction() as db:
        row = (body.get("token"), body["name"], now, _dump(body), _dump(script))
        sql = "INSERT INTO jobs (token, name, created_at, body, script) VALUES (?, ?, ?, ?, ?)"
        seq = db.execute(sql, row).lastrowid
        db.execute("UPDATE jobs SET id = ? WHERE seq = ?", (f"ftjob-{seq:06}", seq))
    return vendor.store.rows("SELECT * FROM jobs WHERE seq = ?", seq)[0]


def _script(settings: Any, body: dict[str, Any]) -> Script:
    """The script of a new job: the vendor's, with the steps and times of the request."""
    script = msgspec.convert(settings, Script)
    changes = {"steps": body.get("hyperparameters", {}).get("max_steps"), "max_time_s": body.get("max_time_s")}
    return msgspec.structs.replace(script, **{name: value for name, value in changes.items() if value is not None})


def get_job(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """A job by id, without any lag."""
    return view_of(vendor, job_row(vendor, body["id"]), now)


def find_job(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """A job by name, where names are unique."""
    if vendor.personality != "unique_names":
        raise VendorError(400, "jobs are not found by name here")
    found = vendor.store.rows("SELECT * FROM jobs WHERE name = ?", body["name"])
    if not found:
        raise VendorError(404, f"no job of the name {body['name']}")
    return view_of(vendor, found[0], now)


def list_jobs(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """A page of jobs, newest first; ``after`` is the last id of the page before, ``metadata`` a filter."""
    shown = vendor.store.rows(
        "SELECT * FROM jobs WHERE NOT deleted AND created_at <= ? ORDER BY seq DESC", now - vendor.list_lag_s
    )
    views = [view_of(vendor, row, now) for row in shown]
    if (wanted := body.get("metadata")) and not vendor.ignores_filter:
        views = [view for view in views if view["metadata"].items() >= wanted.items()]
    ids = [view["id"] for view in views]
    start = ids.index(body["after"]) + 1 if body.get("after") in ids else 0
    page = views[start : start + PAGE]
    return {"data": page, "has_more": start + PAGE < len(views)}


def cancel_job(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Stop a job. One that is stopping or has ended is a conflict, as on most vendors."""
    return _change(vendor, body, now, "cancel", {Word.WAITING, Word.PREPARING, Word.TRAINING, Word.PAUSED})


def pause_job(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Pause a training job."""
    return _change(vendor, body, now, "pause", {Word.TRAINING})


def resume_job(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Resume a paused job."""
    return _change(vendor, body, now, "resume", {Word.PAUSED})


def delete_job(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Remove an ended job."""
    _ended(vendor, body["id"], now)
    with vendor.store.transaction() as db:
        db.execute("UPDATE jobs SET deleted = 1 WHERE id = ?", (body["id"],))
    return {"id": body["id"], "deleted": True}


def _ended(vendor: ScriptedVendor, job: str, now: float) -> None:
    word = life_of(vendor, job_row(vendor, job), now).word
    if word not in ENDED:
        raise VendorError(409, f"job {job} is {word}")


def _change(vendor: ScriptedVendor, body: dict[str, Any], now: float, kind: str, allowed: set[Word]) -> Any:
    word = life_of(vendor, job_row(vendor, body["id"]), now).word
    if word not in allowed:
        raise VendorError(409, f"job {body['id']} is {word}")
    add_act(vendor, body["id"], Act(now, kind))  # type: ignore[arg-type]
    return get_job(vendor, body, b"", now)


def list_events(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """A page of events, in order, after an id."""
    return _page(life_of(vendor, job_row(vendor, body["id"]), now).events, body.get("after"))


def list_metrics(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """A page of metrics, in order, after an id."""
    return _page(life_of(vendor, job_row(vendor, body["id"]), now).metrics, body.get("after"))


def list_checkpoints(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Checkpoints, oldest first."""
    return list(life_of(vendor, job_row(vendor, body["id"]), now).checkpoints)


def _page(entries: tuple[dict[str, Any], ...], after: str | None) -> dict[str, Any]:
    newer = [entry for entry in entries if after is None or entry["id"] > after]
    return {"data": newer[:PAGE], "has_more": len(newer) > PAGE}


# -- models ----------------------------------------------------------------------------------------------------------


def whoami(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """The account of the key."""
    return {"owner": OWNER}


def get_model(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """The model of a completed job."""
    row = job_row(vendor, body["id"])
    if life_of(vendor, row, now).word != Word.COMPLETED:
        raise VendorError(409, f"job {body['id']} has no model")
    return {"model": f"ft:{msgspec.json.decode(row['body'])['model']}:{body['id']}"}


def generate(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """An answer that names its model."""
    return {"text": f"{body['prompt'][::-1]} says {body['model']}"[: body["max_tokens"]]}


def create_deployment(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Deploy a model under a name; repeating it changes nothing."""
    with vendor.store.transaction() as db:
        db.execute("INSERT OR IGNORE INTO deployments VALUES (?, ?, ?)", (body["name"], body["model"], now))
    found = vendor.store.rows("SELECT * FROM deployments WHERE name = ?", body["name"])[0]
    if found["model"] != body["model"]:
        raise VendorError(409, f"deployment {body['name']} serves another model")
    return found


def delete_deployment(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """Delete a deployment."""
    with vendor.store.transaction() as db:
        if not db.execute("DELETE FROM deployments WHERE name = ?", (body["name"],)).rowcount:
            raise VendorError(404, f"no deployment {body['name']}")
    return {}


def list_deployments(vendor: ScriptedVendor, body: dict[str, Any], payload: bytes, now: float) -> Any:
    """List the deployments."""
    return vendor.store.rows("SELECT * FROM deployments ORDER BY name")


# -- shared ----------------------------------------------------------------------------------------------------------


def job_row(vendor: ScriptedVendor, job: str) -> dict[str, Any]:
    """A job's row; raises the vendor's 404."""
    found = vendor.store.rows("SELECT * FROM jobs WHERE id = ? AND NOT deleted", job)
    if not found:
        raise VendorError(404, f"no job {job}")
    return found[0]


def life_of(vendor: ScriptedVendor, row: dict[str, Any], now: float) -> JobStatus:
    """The job at that time."""
    acts = [Act(*act) for act in msgspec.json.decode(row["acts"])]
    return status_at(row["created_at"], acts, msgspec.json.decode(row["script"], type=Script), now)


def add_act(vendor: ScriptedVendor, job: str, act: Act) -> None:
    """Record an act on a job."""
    with vendor.store.transaction() as db:
        acts = [*msgspec.json.decode(job_row(vendor, job)["acts"]), act]
        db.execute("UPDATE jobs SET acts = ? WHERE id = ?", (_dump(acts), job))


def view_of(vendor: ScriptedVendor, row: dict[str, Any], now: float) -> dict[str, Any]:
    """The job as the vendor's API shows it."""
    body, seen = msgspec.json.decode(row["body"]), life_of(vendor, row, now)
    return {
        "id": row["id"], "owner": OWNER, "name": row["name"], "status": seen.word, "model": body["model"],
        "created_at": row["created_at"], "started_at": seen.started_at, "finished_at": seen.ended_at,
        "step": seen.step, "total_steps": msgspec.json.decode(row["script"])["steps"], "error": seen.message,
        "metadata": body.get("metadata", {}), "parent": body.get("parent"),
    }  # fmt: skip


def spoilt(answer: Any, kind: FaultKind) -> Any:
    """Return a list without its newest entries, or with a duplicate entry."""
    if kind == "partial" and isinstance(answer, dict):
        return answer | {"data": answer["data"][1:]}
    if kind == "partial" and isinstance(answer, list):
        return answer[:-1]
    if kind == "repeat" and isinstance(answer, dict):
        return answer | {"data": [entry for entry in answer["data"] for _ in range(2)]}
    return answer


def _dump(value: Any) -> str:
    return msgspec.json.encode(value).decode()


CALLS: dict[str, Callable[[ScriptedVendor, dict[str, Any], bytes, float], Any]] = {
    function.__name__: function
    for function in (
        put_file, post_file, begin_upload, put_part, list_parts, finish_upload, head_file, get_file, list_files,
        create_job, get_job, find_job, list_jobs, cancel_job, pause_job, resume_job, delete_job, list_events,
        list_metrics, list_checkpoints, whoami, get_model, generate, create_deployment, delete_deployment,
        list_deployments,
    )
}  # fmt: skip
