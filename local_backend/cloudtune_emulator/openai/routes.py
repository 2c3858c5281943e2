"""The paths and their calls. Faults are selected by the calls' names."""

from __future__ import annotations

from cloudtune_emulator.openai import (
    chat,
    create_job,
    files,
    jobs,
    models,
    responses,
    uploads,
)
from cloudtune_emulator.route_table import RouteTable

_JOB = "/fine_tuning/jobs/<job>"

ROUTES = RouteTable(
    ("POST", "/files", "files.create", files.create),
    ("GET", "/files", "files.list", files.list_),
    ("GET", "/files/<file>", "files.get", files.get),
    ("GET", "/files/<file>/content", "files.content", files.content),
    ("DELETE", "/files/<file>", "files.delete", files.delete),
    ("POST", "/uploads", "uploads.create", uploads.create),
    ("POST", "/uploads/<upload>/parts", "uploads.part", uploads.part),
    ("POST", "/uploads/<upload>/complete", "uploads.complete", uploads.complete),
    ("POST", "/uploads/<upload>/cancel", "uploads.cancel", uploads.cancel),
    ("POST", "/fine_tuning/jobs", "jobs.create", create_job.create),
    ("GET", "/fine_tuning/jobs", "jobs.list", jobs.list_),
    ("GET", _JOB, "jobs.get", jobs.get),
    ("POST", _JOB + "/cancel", "jobs.cancel", jobs.cancel),
    ("POST", _JOB + "/pause", "jobs.pause", jobs.pause),
    ("POST", _JOB + "/resume", "jobs.resume", jobs.resume),
    ("GET", _JOB + "/events", "jobs.events", jobs.events),
    ("GET", _JOB + "/checkpoints", "jobs.checkpoints", jobs.checkpoints),
    ("GET", "/models", "models.list", models.list_),
    ("GET", "/models/<model>", "models.get", models.get),
    ("DELETE", "/models/<model>", "models.delete", models.delete),
    ("POST", "/chat/completions", "chat.create", chat.create),
    ("POST", "/deployments/<deployment>/chat/completions", "chat.create", chat.create),
    ("POST", "/responses", "responses.create", responses.create),
)
