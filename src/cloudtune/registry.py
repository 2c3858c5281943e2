"""The registry of back ends.

Built-in back ends are in a table, so they are found in a checkout and in a wheel. Third-party back ends come from the
entry-point group ``cloudtune.backends``, whose entries name a class: ``mine = "my_package.backend:MyBackend"``. A back
end is imported when it is opened. If a third-party back end cannot be loaded, it is a warning; for a built-in one, it
is an error with the pip command.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import BackendNotInstalled, CloudtuneError, ConfigError, Problem, UnknownBackend
from cloudtune.install_command import install_command
from cloudtune.plugins import entry_points

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

    from cloudtune.backend import Backend

GROUP = "cloudtune.backends"
_log = logging.getLogger(__name__)


class BackendInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table of back ends."""

    name: str
    target: str
    """``module:Class``."""
    summary: str = ""
    extra: str | None = None
    """The extra of the cloudtune distribution that installs its requirements."""
    needs: tuple[str, ...] = ()
    """Modules that it requires."""
    origin: str = "built-in"
    """``built-in``, or the distribution that provides it."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of ``needs`` that are not installed. Imports nothing."""
        return tuple(name for name in self.needs if not _is_there(name))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


BUILT_IN: dict[str, BackendInfo] = {
    info.name: info
    for info in (
        BackendInfo(
            name="local",
            target="cloudtune_local.backend:LocalBackend",
            summary="fine-tuning on this machine's GPUs or CPU",
            extra="local",
            needs=("torch", "transformers", "peft"),
        ),
        BackendInfo(
            name="openai",
            target="cloudtune_providers.openai.backend:OpenAIBackend",
            summary="fine-tuning jobs on OpenAI, or on any compatible API",
            extra="openai",
            needs=("openai",),
        ),
        BackendInfo(
            name="azure_openai",
            target="cloudtune_providers.azure_openai.backend:AzureOpenAIBackend",
            summary="fine-tuning jobs and deployments on Azure OpenAI or Foundry",
            extra="azure",
            needs=("openai", "azure.core", "azure.identity", "azure.mgmt.cognitiveservices"),
        ),
        BackendInfo(
            name="bedrock",
            target="cloudtune_providers.bedrock.backend:BedrockBackend",
            summary="customization jobs, deployments and model imports on Amazon Bedrock",
            extra="aws",
            needs=("boto3",),
        ),
        BackendInfo(
            name="sagemaker",
            target="cloudtune_providers.sagemaker.backend:SageMakerBackend",
            summary="SageMaker training jobs that run the local back end's trainer",
            extra="sagemaker",
            needs=("boto3",),
        ),
        BackendInfo(
            name="jumpstart",
            target="cloudtune_providers.jumpstart.backend:JumpStartBackend",
            summary="SageMaker training jobs that run AWS's training scripts for JumpStart models",
            extra="aws",
            needs=("boto3",),
        ),
        BackendInfo(
            name="ray",
            target="cloudtune_providers.ray.backend:RayBackend",
            summary="jobs of a Ray cluster that run the local back end's trainer",
            extra="ray",
            needs=("ray",),
        ),
        BackendInfo(
            name="slurm",
            target="cloudtune_providers.slurm.backend:SlurmBackend",
            summary="batch jobs of a Slurm cluster that run the local back end's trainer",
            extra="local",
        ),
        BackendInfo(
            name="ssh",
            target="cloudtune_providers.ssh.backend:SshBackend",
            summary="jobs on a machine that OpenSSH reaches, with the local back end's trainer",
            extra="local",
        ),
    )
}


def backends() -> dict[str, BackendInfo]:
    """Return all known back ends, sorted by name. Built-in ones override third-party ones with the same name."""
    found = {entry.name: _third_party(entry) for entry in entry_points(GROUP)}
    return dict(sorted((found | BUILT_IN).items()))


def backend_names() -> tuple[str, ...]:
    """The names that can be opened, sorted."""
    return tuple(backends())


def describe(name: str) -> BackendInfo:
    """The entry of a back end, without importing it. Raises UnknownBackend."""
    if name in BUILT_IN:  # without a search through every installed distribution
        return BUILT_IN[name]
    known = backends()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else None
    raise UnknownBackend(f"unknown back end {name!r}; known: {', '.join(known)}", hint=hint)


def backend_class(name: str) -> type[Backend]:
    """Import a back end's class. Raises UnknownBackend, BackendNotInstalled."""
    info = describe(name)
    module_name, _, class_name = info.target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), class_name)  # type: ignore[no-any-return]
    except ImportError as error:
        raise not_installed(info, error.name or module_name) from error
    except AttributeError as error:
        raise BackendNotInstalled(f"{info.target}, declared by {info.origin}, does not exist: {error}") from error
    except Exception as error:  # a third party's module may raise anything at import
        if info.origin == "built-in":
            raise
        message = f"the {info.name} back end of {info.origin} cannot be loaded: {type(error).__name__}: {error}"
        raise BackendNotInstalled(message, hint=f"report it to the authors of {info.origin}") from error


def open_backend(name: str, settings: Mapping[str, Any] | None = None) -> Backend:
    """Create a back end from its settings. Raises UnknownBackend, BackendNotInstalled, ConfigError."""
    from pydantic import ValidationError

    cls = backend_class(name)
    try:
        options = cls.Options.model_validate(dict(settings or {}))
    except ValidationError as error:
        raise ConfigError(_problems(name, cls, error)) from error
    return cls(options)  # type: ignore[call-arg]  # a protocol cannot describe its implementations' constructors


def not_installed(info: BackendInfo, module: str) -> BackendNotInstalled:
    """The error with the package to install."""
    line = install_command(info.extra) if info.extra else f"pip install {info.origin}"
    return BackendNotInstalled(
        f"the {info.name} back end requires {module}, which is not installed", hint=f"run: {line}"
    )


def loadable() -> dict[str, BackendInfo]:
    """Return the back ends whose class can be imported. Others from third parties are logged and skipped."""
    found = {}
    for name, info in backends().items():
        try:
            backend_class(name)
        except CloudtuneError:
            if info.origin == "built-in":
                raise
            _log.warning("back end %r of %s cannot be loaded and is skipped", name, info.origin, exc_info=True)
        else:
            found[name] = info
    return found


def _third_party(entry: EntryPoint) -> BackendInfo:
    return BackendInfo(name=entry.name, target=entry.value, origin=entry.dist.name if entry.dist else "an entry point")


def _problems(name: str, cls: type[Backend], error: Any) -> list[Problem]:
    known = list(cls.Options.model_fields)
    found = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"])
        fix = f"known settings: {', '.join(known)}" if fault["type"] == "extra_forbidden" else None
        if near := get_close_matches(field, known, n=1) if fix else None:
            fix = f"did you mean {near[0]!r}? {fix}"
        found.append(
            Problem(code="setting", message=str(fault["msg"]), field=f"backends.{name}.{field}".rstrip("."), fix=fix)
        )
    return found
