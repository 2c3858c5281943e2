"""The `World` of Azure OpenAI's ``ml_workspace`` route: azure-ai-ml and azure-storage-blob against the emulator."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.contract.emulated import _PLACE, KEY, TOKEN, EmulatedWorld, _chat

from cloudtune.spec import JobSpec
from cloudtune.testing.clock import FakeClock
from cloudtune_emulator import Settings
from cloudtune_emulator.azure import storage, workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.state import JobRef
    from cloudtune.testing.world import CallName
    from cloudtune_emulator.job_timeline import JobStatus

CATALOGUE_MODEL = "azureml://registries/azureml-meta/models/Meta-Llama-3.1-8B-Instruct/versions/4"


LOAD_AZURE = f"{__name__}:load_azure"


def load_azure() -> None:
    """Import the SDK, which takes seconds."""
    with warnings.catch_warnings(action="ignore"):
        import azure.ai.ml.operations
        import azure.storage.blob  # noqa: F401


def open_workspace(url: str, clock: str, **options: Any) -> tuple[Backend, Clock]:
    """The recipe: as `open_azure`, by azure-ai-ml. An environment variable of the SDK's says where."""
    from cloudtune_providers.azure_openai.backend import AzureOpenAIBackend
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions
    from cloudtune_providers.azure_openai.signing import workspace_client

    def connect(options: AzureOpenAIOptions) -> Any:
        with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings(action="ignore"):
            patched.setenv("AZUREML_DEV_URL_MFE", url)  # read once, when the client is made
            return workspace_client(options)

    hands = FakeClock(path=Path(clock))
    place = {"subscription_id": _PLACE["subscription_id"], "resource_group": "emulated", "workspace": "lab"}
    given = {"route": "ml_workspace", "management_token": TOKEN, "storage_url": f"{url}/blobs/emulated"} | place
    return AzureOpenAIBackend(AzureOpenAIOptions.model_validate(given | options), workspace=connect, clock=hands), hands


class WorkspaceWorld(EmulatedWorld):
    """A workspace: the client names its jobs, and its rows are in blobs."""

    api = "azure"
    kind = "mljob"
    recipe_target = "tests.contract.emulated_workspace:open_workspace"
    sdk_modules: Sequence[str] = ("openai", "azure")
    names: Mapping[CallName, str] = {
        "upload": "blobs.put", "create": "mljobs.create", "get": "mljobs.get", "list": "mljobs.list",
        "cancel": "mljobs.cancel",
    }  # fmt: skip

    def __init__(self, root: Path, **more: Any) -> None:
        with warnings.catch_warnings(action="ignore"):  # the SDK's own, of its own ways
            from azure.ai.ml._restclient.arm_ml_service.models import JobStatus

        super().__init__(root, **more)
        self.secrets = (TOKEN, storage.key_of(self.emulator.context))
        self.words = tuple(status.value for status in JobStatus if status is not JobStatus.UNKNOWN)
        self.lacks = {
            **self.lacks, "row_limit": "a workspace documents no limit of tokens in a row",
            "paused": "a workspace pauses no fine-tuning job",
        }  # fmt: skip

    def settings(self) -> Settings:
        return Settings(azure_key=KEY, azure_token=TOKEN)

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        given = super().spec(variant, **({"model": CATALOGUE_MODEL} | changes))
        if given.data.validation is not None:
            return given
        held_out = self.rows(f"held-out-{variant}", [_chat(n, variant) for n in range(20, 23)])
        document = given.model_dump(mode="json", exclude_none=True)
        document["data"]["validation"] = {"path": held_out}
        return JobSpec.model_validate(document)

    def show(self, ref: JobRef, word: str) -> None:
        self._forget("invented_status")
        self.emulator.faults.add("invented_status", "mljobs.*", value=word)

    def settle(self, ref: JobRef) -> None:
        """A workspace cancels at once here."""

    def status(self, job: dict[str, Any]) -> JobStatus:
        return workspace.seen_of(job, self.emulator.clock.now())

    def _act(self, ref: JobRef, kind: str) -> None:
        job = self._job(ref)
        job["acts"].append([self.emulator.clock.now(), kind])
        self.emulator.store.save(self.kind, self.api, job)

    def uploads(self) -> Sequence[str]:
        return [blob["id"] for blob in self.emulator.store.all("blob", self.api)]

    def fingerprint(self) -> str:
        held: list[Any] = [self.uploads()]
        held += [[job["id"], job["properties"], job["acts"]] for job in self.emulator.store.all(self.kind, self.api)]
        return hashlib.sha256(msgspec.json.encode(held)).hexdigest()
