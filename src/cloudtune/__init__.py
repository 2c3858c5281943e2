"""cloudtune: fine-tune language models locally or with a cloud provider, through one interface.

Names are imported on first use, so ``import cloudtune`` is fast and imports no SDK and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudtune.advice import Advice as Advice
    from cloudtune.advice import BreakEven as BreakEven
    from cloudtune.advice import Prices as Prices
    from cloudtune.advice import advise as advise
    from cloudtune.advice import break_even as break_even
    from cloudtune.aio import AsyncClient as AsyncClient
    from cloudtune.aio import AsyncJob as AsyncJob
    from cloudtune.backend import Backend as Backend
    from cloudtune.backend import Capabilities as Capabilities
    from cloudtune.client import Client as Client
    from cloudtune.client import connect as connect
    from cloudtune.document.specfile import load_spec as load_spec
    from cloudtune.document.specfile import parse_spec as parse_spec
    from cloudtune.errors import ArchiveError as ArchiveError
    from cloudtune.errors import BackendError as BackendError
    from cloudtune.errors import BackendNotInstalled as BackendNotInstalled
    from cloudtune.errors import CloudtuneError as CloudtuneError
    from cloudtune.errors import ConfigError as ConfigError
    from cloudtune.errors import Conflict as Conflict
    from cloudtune.errors import CredentialsError as CredentialsError
    from cloudtune.errors import DataError as DataError
    from cloudtune.errors import InputError as InputError
    from cloudtune.errors import InvalidRequest as InvalidRequest
    from cloudtune.errors import JobCancelled as JobCancelled
    from cloudtune.errors import JobEnded as JobEnded
    from cloudtune.errors import JobExpired as JobExpired
    from cloudtune.errors import JobFailed as JobFailed
    from cloudtune.errors import JobInterrupted as JobInterrupted
    from cloudtune.errors import JobNotFound as JobNotFound
    from cloudtune.errors import LedgerError as LedgerError
    from cloudtune.errors import LostContact as LostContact
    from cloudtune.errors import OutcomeUnknown as OutcomeUnknown
    from cloudtune.errors import PermissionDenied as PermissionDenied
    from cloudtune.errors import PolicyRefused as PolicyRefused
    from cloudtune.errors import Problem as Problem
    from cloudtune.errors import QuotaExceeded as QuotaExceeded
    from cloudtune.errors import RateLimited as RateLimited
    from cloudtune.errors import SpecError as SpecError
    from cloudtune.errors import TransientError as TransientError
    from cloudtune.errors import Unavailable as Unavailable
    from cloudtune.errors import UnknownBackend as UnknownBackend
    from cloudtune.errors import UnsupportedError as UnsupportedError
    from cloudtune.errors import WaitTimeout as WaitTimeout
    from cloudtune.evaluation.result import EvaluateOptions as EvaluateOptions
    from cloudtune.evaluation.result import Evaluation as Evaluation
    from cloudtune.execute import StepUpdate as StepUpdate
    from cloudtune.job import Job as Job
    from cloudtune.optional import GenerateOptions as GenerateOptions
    from cloudtune.optional import Generator as Generator
    from cloudtune.optional import Host as Host
    from cloudtune.plan import Plan as Plan
    from cloudtune.plan import Step as Step
    from cloudtune.registry import backend_names as backend_names
    from cloudtune.report.document import Report as Report
    from cloudtune.spec import Checkpoints as Checkpoints
    from cloudtune.spec import Data as Data
    from cloudtune.spec import EarlyStopping as EarlyStopping
    from cloudtune.spec import EvaluationSettings as EvaluationSettings
    from cloudtune.spec import Hyperparameters as Hyperparameters
    from cloudtune.spec import JobSpec as JobSpec
    from cloudtune.spec import JudgeSettings as JudgeSettings
    from cloudtune.spec import Limits as Limits
    from cloudtune.spec import MixedIn as MixedIn
    from cloudtune.spec import Source as Source
    from cloudtune.spec import Validation as Validation
    from cloudtune.spec_method import Method as Method
    from cloudtune.spec_method import Reward as Reward
    from cloudtune.spec_trained import Adapter as Adapter
    from cloudtune.spec_trained import Layers as Layers
    from cloudtune.spec_trained import Stage as Stage
    from cloudtune.spec_tune import Choices as Choices
    from cloudtune.spec_tune import Range as Range
    from cloudtune.spec_tune import Tune as Tune
    from cloudtune.state import Checkpoint as Checkpoint
    from cloudtune.state import Deployment as Deployment
    from cloudtune.state import Event as Event
    from cloudtune.state import Generation as Generation
    from cloudtune.state import JobRef as JobRef
    from cloudtune.state import JobSnapshot as JobSnapshot
    from cloudtune.state import JobState as JobState
    from cloudtune.state import Metric as Metric
    from cloudtune.state import Prediction as Prediction
    from cloudtune.state import TunedModel as TunedModel
    from cloudtune.tuning.result import TuneResult as TuneResult
    from cloudtune.tuning.study import TuneUpdate as TuneUpdate
    from cloudtune.watch import Update as Update

_HOMES = {
    "advice": ("Advice", "BreakEven", "Prices", "advise", "break_even"),
    "aio": ("AsyncClient", "AsyncJob"),
    "backend": ("Backend", "Capabilities"),
    "client": ("Client", "connect"),
    "errors": (
        "ArchiveError", "BackendError", "BackendNotInstalled", "CloudtuneError", "ConfigError", "Conflict",
        "CredentialsError", "DataError", "InputError", "InvalidRequest", "JobCancelled", "JobEnded", "JobExpired",
        "JobFailed", "JobInterrupted", "JobNotFound", "LedgerError", "LostContact", "OutcomeUnknown",
        "PermissionDenied", "PolicyRefused", "Problem", "QuotaExceeded", "RateLimited", "SpecError", "TransientError",
        "Unavailable", "UnknownBackend", "UnsupportedError", "WaitTimeout",
    ),
    "evaluation.result": ("EvaluateOptions", "Evaluation"),
    "execute": ("StepUpdate",),
    "job": ("Job",),
    "optional": ("GenerateOptions", "Generator", "Host"),
    "plan": ("Plan", "Step"),
    "registry": ("backend_names",),
    "report.document": ("Report",),
    "spec": (
        "Checkpoints", "Data", "EarlyStopping", "EvaluationSettings", "Hyperparameters", "JobSpec", "JudgeSettings",
        "Limits", "MixedIn", "Source", "Validation",
    ),
    "spec_method": ("Method", "Reward"),
    "spec_trained": ("Adapter", "Layers", "Stage"),
    "spec_tune": ("Choices", "Range", "Tune"),
    "document.specfile": ("load_spec", "parse_spec"),
    "state": (
        "Checkpoint", "Deployment", "Event", "Generation", "JobRef", "JobSnapshot", "JobState", "Metric", "Prediction",
        "TunedModel",
    ),
    "tuning.result": ("TuneResult",),
    "tuning.study": ("TuneUpdate",),
    "watch": ("Update",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "Adapter",
    "Advice",
    "ArchiveError",
    "AsyncClient",
    "AsyncJob",
    "Backend",
    "BackendError",
    "BackendNotInstalled",
    "BreakEven",
    "Capabilities",
    "Checkpoint",
    "Checkpoints",
    "Choices",
    "Client",
    "CloudtuneError",
    "ConfigError",
    "Conflict",
    "CredentialsError",
    "Data",
    "DataError",
    "Deployment",
    "EarlyStopping",
    "EvaluateOptions",
    "Evaluation",
    "EvaluationSettings",
    "Event",
    "GenerateOptions",
    "Generation",
    "Generator",
    "Host",
    "Hyperparameters",
    "InputError",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobEnded",
    "JobExpired",
    "JobFailed",
    "JobInterrupted",
    "JobNotFound",
    "JobRef",
    "JobSnapshot",
    "JobSpec",
    "JobState",
    "JudgeSettings",
    "Layers",
    "LedgerError",
    "Limits",
    "LostContact",
    "Method",
    "Metric",
    "MixedIn",
    "OutcomeUnknown",
    "PermissionDenied",
    "Plan",
    "PolicyRefused",
    "Prediction",
    "Prices",
    "Problem",
    "QuotaExceeded",
    "Range",
    "RateLimited",
    "Report",
    "Reward",
    "Source",
    "SpecError",
    "Stage",
    "Step",
    "StepUpdate",
    "TransientError",
    "Tune",
    "TuneResult",
    "TuneUpdate",
    "TunedModel",
    "Unavailable",
    "UnknownBackend",
    "UnsupportedError",
    "Update",
    "Validation",
    "WaitTimeout",
    "advise",
    "backend_names",
    "break_even",
    "connect",
    "load_spec",
    "parse_spec",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
