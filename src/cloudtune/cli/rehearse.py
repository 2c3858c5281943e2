"""``cloudtune move --rehearse``: run the old and the new spec against the emulator, and compare the models.

Nothing is sent to a vendor: the emulator serves their APIs on this machine and trains small models in place of theirs.
The process has no vendor's credentials and no configuration of the user meanwhile. Variables of the Hugging Face hub
stay, because the base models come from there.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtune.cli.emulate import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.cli.session import Session
    from cloudtune.client import Client
    from cloudtune.evaluation.result import Evaluation
    from cloudtune.job import Job
    from cloudtune.moving import Move
    from cloudtune.spec import JobSpec

NOTE = (
    "the emulator trained small models in place of the vendors': this shows that the moved job runs and its model "
    "answers, not how well the vendor's model learns; after the real jobs, run: cloudtune compare NEW OLD --data FILE"
)
_KEPT = ("PATH", "TMPDIR", "TEMP", "LANG", "LC_", "PYTHON", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_", "OMP_", "HF_")
"""Variables that stay, by the beginnings of their names."""
_HUB_CACHE = "HF_HOME"


def rehearse(
    session: Session, spec: JobSpec, found: Move, models: Path | None, *, trust_remote_code: bool, trust_reward: bool
) -> Evaluation:
    """Run both specs and return the evaluation of the new model against the old one, on the held-out rows.

    Raises:
        InputError: The spec has no held-out rows.
        PolicyRefused: The spec asks to run code, or to send rows to an endpoint, which is not confirmed.
        UnsupportedError: The move is to a compatible service of the same back end.
        JobFailed: One of the jobs failed.
    """
    from cloudtune.client import Client
    from cloudtune.config.config import load_config
    from cloudtune.errors import InputError, UnsupportedError
    from cloudtune.evaluation.prepared import requested
    from cloudtune.evaluation.result import EvaluateOptions
    from cloudtune.trust import require_trust

    if found.source == found.target:
        raise UnsupportedError(
            "a compatible service is not rehearsed", hint="serve its dialect: cloudtune emulate --service FILE"
        )
    asked = requested(spec)
    if asked is None and spec.data.test is None:
        raise InputError("the spec has no held-out rows to compare the models", hint="set data.test, e.g. 0.1")
    for one, backend in ((spec, found.source), (found.spec, found.target)):
        document = one.model_dump(mode="json", exclude_none=True)
        require_trust(document, backend, confirmed=trust_remote_code, reward_confirmed=trust_reward)
    data, options = (asked.data, asked.options) if asked is not None else (spec.data, EvaluateOptions())
    with _empty_environment() as folder:
        settings = {"engine": "train", "models": models, "beyond_loopback": False, "tls": False}
        with opened("127.0.0.1", 0, 1.0, settings) as emulator:
            os.environ.update(emulator.environment())
            with Client(config=load_config(folder)) as client:
                old = _trained(session, client, spec, found.source)
                new = _trained(session, client, found.spec, found.target)
                evaluation = client.evaluate(
                    new, data, against=[old], options=options, trust_remote_code=trust_remote_code,
                    trust_reward=trust_reward,
                )  # fmt: skip
                for deployment in client.deployments():
                    client.remove(deployment)
            if leaks := emulator.leaks():
                session.say(f"rehearsal: not deleted: {leaks}", even_quiet=True)
            return evaluation


def _trained(session: Session, client: Client, spec: JobSpec, backend: str) -> Job:
    """A job that has succeeded, with its model deployed if it must be. What the spec asks to trust is confirmed."""
    from cloudtune.document.specfile import name_from

    session.say(f"rehearsal: training on {backend}")
    spec = spec.model_copy(update={"name": name_from(backend)})  # which names the models in the comparison
    job = client.submit(
        spec, backend=backend, trust_remote_code=True, trust_reward=True, accept_unknown_cost=True
    )  # fmt: skip
    job.wait()
    if (model := job.model()).needs_deploy:
        session.say(f"rehearsal: deploying on {backend}")
        client.deploy(model)
    return job


@contextmanager
def _empty_environment() -> Iterator[Path]:
    """An environment without credentials, with an empty home folder; the user's own is restored at the end."""
    before = dict(os.environ)
    cache = before.get(_HUB_CACHE) or str(Path("~/.cache/huggingface").expanduser())
    with tempfile.TemporaryDirectory(prefix="cloudtune-rehearsal-") as home:
        kept = {name: value for name, value in before.items() if name.startswith(_KEPT)}
        places = dict.fromkeys(("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "CLOUDTUNE_HOME"), home)
        try:
            os.environ.clear()
            os.environ.update(kept | places | {_HUB_CACHE: cache})
            yield Path(home)
        finally:
            os.environ.clear()
            os.environ.update(before)
