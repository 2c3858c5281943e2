"""Reads a model's document in the hub: both key styles, aliases, variants. Pure.

Form: sagemaker-core 2.27.0, ``jumpstart/models.py``; which variant counts: sagemaker-train 1.27.0, ``defaults.py``. A
variant is looked up by the instance family first, then by the whole type; its hyperparameters have lowercase keys where
the model's own are capitalized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune_providers.aws.instances import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LEGACY = "sagemaker_"
"""Hyperparameters of the old container protocol, which documents still list."""
ENTRY = "transfer_learning.py"
"""The program in every training script of JumpStart (sagemaker-core 2.27.0, ``jumpstart/constants.py``)."""
_KEPT = (
    "TrainingSupported", "FineTuningSupported", "ValidationSupported", "GatedBucket", "HostingEulaUri",
    "HostingEulaExternalLink", "License", "TrainingScriptUri", "TrainingEcrUri", "TrainingArtifactUri",
    "TrainingArtifactCompressionType", "DefaultTrainingDatasetUri", "DefaultTrainingInstanceType",
    "SupportedTrainingInstanceTypes", "TrainingVolumeSize", "TrainingEnableNetworkIsolation",
    "EncryptInterContainerTraffic", "MaxRuntimeInSeconds", "DisableOutputCompression", "TrainingMetrics",
    "Hyperparameters", "TrainingInstanceTypeVariants", "TrainingConfigs", "TrainingConfigComponents", "HostingEcrUri",
    "DefaultInferenceInstanceType", "SupportedInferenceInstanceTypes", "InferenceEnvironmentVariables",
    "HostingInstanceTypeVariants", "InferenceEnableNetworkIsolation",
)  # fmt: skip


class Hyper(NamedTuple):
    """A document's definition of one hyperparameter."""

    name: str
    type: str
    """int, float, text or bool."""
    default: Any = None
    least: float | None = None
    most: float | None = None
    options: tuple[str, ...] = ()

    def fault(self, value: str) -> str:
        """The error of a value in the format in which it is sent; empty if valid."""
        if self.options and value not in self.options:
            return f"is one of {', '.join(self.options)}"
        if self.type not in ("int", "float"):
            return ""
        try:
            number = int(value) if self.type == "int" else float(value)
        except ValueError:
            return f"is a {'whole number' if self.type == 'int' else 'number'}"
        if (self.least is not None and number < self.least) or (self.most is not None and number > self.most):
            return f"lies between {_bound(self.least)} and {_bound(self.most)}"
        return ""


def kept(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that planning uses; the whole document is many times larger."""
    return {key: document[key] for key in _KEPT if document.get(key) is not None}


class Document:
    """A model's document, or one of its training configurations."""

    def __init__(self, content: Mapping[str, Any], config: str | None = None) -> None:
        self._whole = content
        part = (content.get("TrainingConfigComponents") or {}).get(config) if config else None
        self._part: Mapping[str, Any] = {**content, **part} if part else content

    def __getitem__(self, key: str) -> Any:
        return self._part.get(key)

    @property
    def configs(self) -> tuple[str, ...]:
        """Names of the training configurations."""
        return tuple(self._whole.get("TrainingConfigComponents") or ())

    @property
    def trains(self) -> bool:
        """Whether a training job can be created from it."""
        return bool(self["TrainingSupported"] and self["TrainingScriptUri"])

    @property
    def is_gated(self) -> bool:
        """Whether terms must be accepted first."""
        return bool(self["GatedBucket"])

    @property
    def terms(self) -> str:
        """The URL of the terms."""
        return str(self["HostingEulaExternalLink"] or self["HostingEulaUri"] or self["License"] or "the model's page")

    def variant(self, instance_type: str, side: str = "Training") -> dict[str, Any]:
        """The variant for that instance type."""
        variants = (self[f"{side}InstanceTypeVariants"] or {}).get("Variants") or {}
        found = variants.get(family_of(instance_type)) or variants.get(instance_type) or {}
        return dict(found.get("Properties") or {})

    def image(self, instance_type: str, side: str = "Training") -> str:
        """The container image, aliases resolved."""
        given = str(self.variant(instance_type, side).get("ImageUri") or self[f"{side}EcrUri"] or "")
        if given.startswith("$"):
            return str(((self[f"{side}InstanceTypeVariants"] or {}).get("Aliases") or {}).get(given[1:], ""))
        return given

    def weights(self, instance_type: str) -> str:
        """The location of the base model's weights."""
        variant = self.variant(instance_type)
        found = variant.get("GatedModelEnvVarUri") or variant.get("TrainingArtifactUri") or self["TrainingArtifactUri"]
        return str(found or "")

    def environment(self, instance_type: str) -> dict[str, str]:
        """Variables of the training container."""
        given = self.variant(instance_type).get("EnvironmentVariables") or {}
        return {str(key): str(value) for key, value in given.items()}

    def serving_environment(self) -> dict[str, str]:
        """Variables of the serving container."""
        found = {}
        for entry in self["InferenceEnvironmentVariables"] or ():
            if entry.get("Name") and entry.get("Default") is not None:
                found[str(entry["Name"])] = _text(entry["Default"])
        return found

    def hyperparameters(self, instance_type: str) -> dict[str, Hyper]:
        """All hyperparameters, with the defaults for that instance type, without those of the old protocol."""
        found = {one.name: one for one in _read(self["Hyperparameters"] or ())}
        for one in _read(self.variant(instance_type).get("Hyperparameters") or ()):
            known = found.get(one.name)
            # A variant's entry often has nothing but a default.
            found[one.name] = known._replace(default=one.default) if known else one
        return {name: one for name, one in found.items() if not name.startswith(LEGACY)}

    def defaults(self, instance_type: str) -> dict[str, str]:
        """Every hyperparameter that has a default, in the format in which it is sent."""
        entries = self.hyperparameters(instance_type).values()
        return {one.name: _text(one.default) for one in entries if one.default is not None}

    def metrics(self) -> list[dict[str, str]]:
        """Metric definitions in the format of CreateTrainingJob."""
        return [{"Name": str(one["Name"]), "Regex": str(one["Regex"])} for one in self["TrainingMetrics"] or ()]


def _read(entries: Any) -> Iterator[Hyper]:
    for entry in entries:
        low = {str(key).lower(): value for key, value in entry.items()}
        if low.get("name"):
            yield Hyper(
                name=str(low["name"]), type=str(low.get("type") or "text").lower(), default=low.get("default"),
                least=_number(low.get("min")), most=_number(low.get("max")),
                options=tuple(_text(option) for option in low.get("options") or ()),
            )  # fmt: skip


def as_sent(value: Any) -> str:
    """A value in the format of JumpStart's scripts: booleans are True or False."""
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _number(value: Any) -> float | None:
    try:
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"
