"""Model packages of serverless jobs: their group, their content, and the download of their files."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound, UnsupportedError
from cloudtune.state import JobRef, TunedModel
from cloudtune_providers.sagemaker.capabilities import NAME
from cloudtune_providers.sagemaker.serverless import is_nova

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.sagemaker.storage import Stores

_TAKEN = re.compile(r"already exist", re.IGNORECASE)


class Packages:
    """The model packages of one account and region. Thread-safe."""

    def __init__(self, clients: Clients, stores: Stores) -> None:
        self._clients = clients
        self._stores = stores

    # -- groups ----------------------------------------------------------------------------------------------------

    def create_group(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the group. An existing group is reused, because its versions are independent."""
        name = str(body["ModelPackageGroupName"])
        try:
            with self._clients.asking(f"model package group {name}", missing=InvalidRequest):
                self._client.create_model_package_group(**body)
        except (InvalidRequest, Conflict) as error:
            if not _TAKEN.search(str(error)):
                raise
        found = self.find_group(body)
        if not isinstance(found, Done):
            raise InvalidRequest(f"the model package group {name} was created but cannot be found")
        return found.outputs

    def find_group(self, body: Mapping[str, Any]) -> Found:
        """The group of that name."""
        name = str(body["ModelPackageGroupName"])
        try:
            with self._clients.asking(f"model package group {name}"):
                response = self._client.describe_model_package_group(ModelPackageGroupName=name)
        except JobNotFound:
            return Absent()
        return Done(outputs={"arn": str(response["ModelPackageGroupArn"]), "name": name})

    # -- packages --------------------------------------------------------------------------------------------------

    def model(self, ref: JobRef, job: Mapping[str, Any]) -> TunedModel:
        """The job's model package. Raises InvalidRequest while there is none."""
        arn = job.get("OutputModelPackageArn")
        if not arn or job.get("TrainingJobStatus") != "Completed":
            raise InvalidRequest(f"{ref} has no model; its state is {job.get('TrainingJobStatus')}")
        with self._clients.asking(f"model package {arn}"):
            response = self._client.describe_model_package(ModelPackageName=str(arn))
        container = ((response.get("InferenceSpecification") or {}).get("Containers") or [{}])[0]
        source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
        config = job["ServerlessJobConfig"]
        base = str(config["BaseModelArn"]).partition("/Model/")[2].partition("/")[0]
        return TunedModel(
            id=ref.id,
            base=base,
            backend=NAME,
            scope=ref.scope,
            ref=ref,
            call="api",
            needs_deploy=True,
            adapter="lora" if config.get("Peft") else "full",
            uri=source.get("S3Uri") or container.get("ModelDataUrl"),
            raw={"package": str(arn), "billable_tokens": job.get("BillableTokenCount")},
        )

    def export(self, model: TunedModel, to: Path, *, merged: bool) -> Sequence[Path]:
        """Download the package's files to a new folder, as AWS's recipe wrote them."""
        if is_nova(model.base) or not model.uri:
            raise UnsupportedError(f"the weights of {model.base} stay with AWS")
        if merged and model.adapter != "full":
            raise UnsupportedError("AWS's recipe merges the weights; set overrides.sagemaker.recipe.merge_weights")
        if to.exists():
            raise InvalidRequest(f"{to} already exists", hint="choose a folder that does not exist yet")
        aside = to.with_name(f".{to.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            self._stores.fetch_all(model.uri, aside)
            aside.rename(to)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return sorted(path for path in to.rglob("*") if path.is_file())

    def delete(self, job: Mapping[str, Any]) -> None:
        """Delete the job's package; its group is kept, since others may use it."""
        arn = job.get("OutputModelPackageArn")
        if not arn:
            return
        try:
            with self._clients.asking(f"model package {arn}"):
                self._client.delete_model_package(ModelPackageName=str(arn))
        except JobNotFound:
            return

    @property
    def _client(self) -> Any:
        return self._clients.client("sagemaker")
