"""Profiles of services that speak OpenAI's dialect: address, key, methods, parameters, limits and prices, as data.

``services`` has one JSON file per service. A user's own file, with the same format, needs no code either.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from cloudtune.catalog import Catalog
from cloudtune.catalog.reading import source_problems
from cloudtune.data.checks.targets import Target
from cloudtune.data.write.formats_table import format_names
from cloudtune.errors import ConfigError, DataError, Problem
from cloudtune.files.regular_file import read_regular
from cloudtune.methods import METHODS, MethodName
from cloudtune.plan import output_ref
from cloudtune.spec import spec_features
from cloudtune_providers.openai_dialect.features import complete
from cloudtune_providers.openai_dialect.requests import METHODS as KINDS
from cloudtune_providers.openai_dialect.requests import Traits, metadata_of, plan_of, settings_of
from cloudtune_providers.openai_dialect.responses import TOKEN_KEY
from cloudtune_providers.openai_dialect.sdk_client import KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import date

    from cloudtune.backend import Capabilities
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_providers.openai_dialect.rules import Rules

NAME = "openai"
_FOLDER = Path(__file__).with_name("services")
_LARGEST_BYTES = 1 << 20
_SUFFIX = "suffix"
_REFUSED = {
    "verb:continue": "the service cannot continue a job that has ended",
    "verb:delete": "the service keeps job records; only the model and the files can be deleted",
    "verb:deploy": "tuned models are available without deployment",
    "verb:export": "the service does not export weights through OpenAI's dialect",
}


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One service."""

    title: str
    base_url: str
    """With its ``/v1``."""
    key_variable: str
    """The environment variable with the key. OPENAI_API_KEY is never sent to the service."""
    methods: dict[MethodName, str]
    """Method -> format of the uploaded rows."""
    parameters: dict[str, str] = {}
    """Field of the spec -> name of the hyperparameter."""
    adapters: dict[str, dict[str, Any]] = {}
    """Adapter -> hyperparameters that request it."""
    overrides: tuple[str, ...] = ()
    """The supported keys of ``overrides.openai``."""
    metadata: bool = True
    """Whether jobs return their metadata. If not, a job is identified by its training file."""
    reasons: dict[str, str] = {}
    """Why features are not supported."""
    catalog: Catalog

    def capabilities(self) -> Capabilities:
        """What the service supports."""
        fields = {"data.validation", "seed", *self.parameters, *({"tags"} if self.metadata else ())}
        found = complete(
            [*(f"method:{name}" for name in self.methods), *(f"adapter:{name}" for name in self.adapters), *fields],
            refused=_REFUSED | self.reasons,
            inherent=frozenset({"data.test"}),
            translated={"data.test": "not uploaded; the rows stay on this machine for evaluation", **self.parameters},
            no_choice=f"{self.title} does not support it", no_value=f"{self.title} accepts no value for it",
            common_overrides={_SUFFIX: _SUFFIX} if _SUFFIX in self.overrides else {},
        )  # fmt: skip
        return msgspec.structs.replace(found, title=self.title)

    def check(self, spec: JobSpec, rules: Rules, today: date, known: Collection[str]) -> Iterator[Problem]:
        """Values that the service would refuse, and dates. ``known``: the keys that OpenAI's overrides can have."""
        yield from rules.dates(spec, today)
        for key in sorted({*spec.overrides.get(NAME, {})} & {*known} - {*self.overrides}):
            message = f"{self.title} has no such setting"
            fix = f"it supports {', '.join(self.overrides) or 'none'}"
            yield Problem(code="not_of_service", field=f"overrides.{NAME}.{key}", message=message, fix=fix)
        model = spec.model_for(NAME) or ""
        for field, (name, value) in self._requested(spec).items():
            entry = self.catalog.range(name, model, spec.method.name)
            if entry is not None and (fault := entry.fault(value)):
                message = f"{name} {fault}, not {value} ({self.catalog.cite(entry.source)})"
                yield Problem(code="out_of_range", field=field, message=message, fix=f"{name} is {entry.words()}")

    def target(self, model: str | None, method: str | None) -> Target:
        """The rows that it accepts."""
        return Target(NAME, self._formats()).with_limits(self.catalog, model, method)

    def plan(self, request: PlanRequest, rules: Rules, *, timeout_s: float, list_lag_s: float) -> Plan:
        """The steps. Raises DataError for rows that it would refuse."""
        spec = request.spec
        problems = list(rules.rows(spec, request.data, kind=METHODS[spec.method.name].kinds[0]))
        if any(problem.severity == "error" for problem in problems):
            raise DataError(problems)
        given = spec.overrides.get(NAME, {})
        training_file = {"training_file": output_ref("await_train", "file")}
        traits = Traits(
            backend=NAME, formats=self._formats(), timeout_s=timeout_s, list_lag_s=list_lag_s,
            parts_from_bytes=float("inf"),
            suffix=(given.get(_SUFFIX) or spec.name) if _SUFFIX in self.overrides else None,
            marks={"metadata": {TOKEN_KEY: request.token}} if self.metadata else training_file,
            own_files=not self.metadata, fenced=not self.metadata, file_label="" if self.metadata else spec.name,
            extra={"method": self._method(spec)} | ({"metadata": metadata_of(request)} if self.metadata else {}),
        )  # fmt: skip
        defaults = {
            field: entry.default for field, name in self.parameters.items()
            if (entry := self.catalog.range(name)) is not None and entry.default is not None
        }  # fmt: skip
        return plan_of(request, traits, settings_of(request, traits, defaults), tuple(problems))

    def _formats(self) -> dict[str, str]:
        return {str(name): form for name, form in self.methods.items()}

    def _requested(self, spec: JobSpec) -> dict[str, tuple[str, Any]]:
        fields = spec.requested_fields()
        found = {field: (name, fields[field]) for field, name in self.parameters.items() if field in fields}
        return {
            field: (name, int(value) if isinstance(value, float) and value.is_integer() else value)
            for field, (name, value) in found.items()
        }

    def _method(self, spec: JobSpec) -> dict[str, Any]:
        kind = KINDS[spec.method.name]
        chosen = dict(self._requested(spec).values())
        chosen |= self.adapters.get(spec.adapter.type, {}) if spec.adapter is not None else {}
        return {"type": kind, kind: {"hyperparameters": chosen}} if chosen else {"type": kind}


@cache
def load_service(name: str) -> Service:
    """The profile of that name, or in that JSON file. Raises ConfigError."""
    known = sorted(file.stem for file in _FOLDER.glob("*.json"))
    path = _FOLDER / f"{name}.json" if name in known else Path(name).expanduser()
    fix = f"see {_FOLDER / 'nebius.json'}"
    try:
        if not path.is_absolute():  # it would be another file in another working folder
            raise FileNotFoundError("it is neither the name of a service nor an absolute path, nor begins with ./")
        found = msgspec.json.decode(read_regular(path, _LARGEST_BYTES), type=Service)
        faults = [f"{path}: {fault}" for fault in _faults(found)]
        if not faults:
            return found
    except OSError as error:
        faults = [f"no profile {name!r}: {error.strerror or error}"]
        fix = f"name one of {', '.join(known)}, or a JSON file: ./FILE is next to the configuration file"
    except (msgspec.DecodeError, RecursionError) as error:
        faults = [f"{path} is not a profile of a service: {error}"]
    field = f"backends.{NAME}.service"
    raise ConfigError([Problem(code="service", field=field, message=fault, fix=fix) for fault in faults])


def _faults(service: Service) -> Iterator[str]:
    """What the types do not check."""
    if urlsplit(service.base_url).scheme not in ("https", "http"):
        yield f"base_url: {service.base_url!r} is not the address of an API"
    if service.key_variable == KEY_VARIABLE:
        yield f"key_variable: {KEY_VARIABLE} has the key of OpenAI; name another variable"
    for method, form in service.methods.items():
        if method not in KINDS:
            yield f"methods: {method} is not part of the dialect, only {', '.join(KINDS)}"
        if form not in format_names():
            yield f"methods: {form!r} is not a format of rows"
    features = spec_features()
    names = [*service.parameters, *(f"adapter:{name}" for name in service.adapters)]
    yield from (f"{name} is not a feature of a spec" for name in names if name not in features)
    yield from (f"catalog: {problem.message}" for problem in source_problems(service.catalog, ""))
