"""Which call a path is. The names are what faults are aimed at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudtune_emulator.openai import (
    chat,
    create_job,
    files,
    jobs,
    models,
    responses,
    uploads,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call, Reply

_JOB = r"/fine_tuning/jobs/(?P<job>[^/]+)"

_TABLE: tuple[tuple[str, str, str, Callable[[EmulatorContext, Call], Reply]], ...] = (
    ("POST", r"/files", "files.create", files.create),
    ("GET", r"/files", "files.list", files.list_),
    ("GET", r"/files/(?P<file>[^/]+)", "files.get", files.get),
    ("GET", r"/files/(?P<file>[^/]+)/content", "files.content", files.content),
    ("DELETE", r"/files/(?P<file>[^/]+)", "files.delete", files.delete),
    ("POST", r"/uploads", "uploads.create", uploads.create),
    ("POST", r"/uploads/(?P<upload>[^/]+)/parts", "uploads.part", uploads.part),
    ("POST", r"/uploads/(?P<upload>[^/]+)/complete", "uploads.complete", uploads.complete),
    ("POST", r"/uploads/(?P<upload>[^/]+)/cancel", "uploads.cancel", uploads.cancel),
    ("POST", r"/fine_tuning/jobs", "jobs.create", create_job.create),
    ("GET", r"/fine_tuning/jobs", "jobs.list", jobs.list_),
    ("GET", _JOB, "jobs.get", jobs.get),
    ("POST", _JOB + r"/cancel", "jobs.cancel", jobs.cancel),
    ("POST", _JOB + r"/pause", "jobs.pause", jobs.pause),
    ("POST", _JOB + r"/resume", "jobs.resume", jobs.resume),
    ("GET", _JOB + r"/events", "jobs.events", jobs.events),
    ("GET", _JOB + r"/checkpoints", "jobs.checkpoints", jobs.checkpoints),
    ("GET", r"/models", "models.list", models.list_),
    ("GET", r"/models/(?P<model>[^/]+)", "models.get", models.get),
    ("DELETE", r"/models/(?P<model>[^/]+)", "models.delete", models.delete),
    ("POST", r"/chat/completions", "chat.create", chat.create),
    ("POST", r"/deployments/(?P<deployment>[^/]+)/chat/completions", "chat.create", chat.create),
    ("POST", r"/responses", "responses.create", responses.create),
)
ROUTES = tuple((method, re.compile(pattern), name, handler) for method, pattern, name, handler in _TABLE)
