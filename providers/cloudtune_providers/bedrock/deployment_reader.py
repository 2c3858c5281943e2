"""Reads and lists deployments and provisioned throughput, with their hourly cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.errors import JobNotFound
from cloudtune.state import Deployment
from cloudtune_providers.bedrock.calls import PAGE, pages
from cloudtune_providers.bedrock.responses import NAME, model_of, plain, utc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.catalog import Catalog
    from cloudtune_providers.aws.clients import Clients

PROVISIONED = "provisioned/"
"""Prefix of the name of provisioned throughput."""
STATES = {
    # botocore 1.44.5, bedrock/2023-04-20: CustomModelDeploymentStatus and ProvisionedModelStatus.
    "Creating": "creating", "Active": "ready", "InService": "ready", "Updating": "updating", "Failed": "failed",
}  # fmt: skip


class DeploymentReader:
    """The deployments of one account and region."""

    def __init__(self, clients: Clients, catalog: Catalog) -> None:
        self._clients = clients
        self._catalog = catalog

    def get(self, name: str) -> Deployment | None:
        """The deployment of that name, or None."""
        bedrock = self._clients.client(NAME)
        try:
            with self._clients.asking(f"deployment {name}"):
                if name.startswith(PROVISIONED):
                    found = bedrock.get_provisioned_model_throughput(provisionedModelId=name.removeprefix(PROVISIONED))
                    return self._provisioned(found)
                return self._on_demand(bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=name))
        except JobNotFound:
            return None

    def listed(self) -> list[Deployment]:
        """All deployments, on demand first."""
        size = {"maxResults": PAGE}
        on_demand = pages(self._clients, "list_custom_model_deployments", "modelDeploymentSummaries", size)
        found = [self._on_demand(entry) for page in on_demand for entry in page]
        provisioned = pages(self._clients, "list_provisioned_model_throughputs", "provisionedModelSummaries", size)
        return found + [self._provisioned(entry) for page in provisioned for entry in page]

    def _on_demand(self, entry: Mapping[str, Any]) -> Deployment:
        name = entry.get("customModelDeploymentName") or entry.get("modelDeploymentName")
        word = str(entry.get("status") or "")
        return Deployment(
            id=str(name), backend=NAME, scope=self._clients.scope(), model=str(entry.get("modelArn") or ""),
            state=STATES.get(word, "unknown"), native_state=word, created_at=utc(entry.get("createdAt")),
            hourly_cost_usd=0.0, raw=plain(dict(entry)),
        )  # fmt: skip

    def _provisioned(self, entry: Mapping[str, Any]) -> Deployment:
        base = model_of(str(entry.get("foundationModelArn") or ""))
        price = self._catalog.price("provisioned", base, tier=str(entry.get("commitmentDuration") or "none"))
        units, word = int(entry.get("modelUnits") or 1), str(entry.get("status") or "")
        return Deployment(
            id=f"{PROVISIONED}{entry.get('provisionedModelName')}", backend=NAME, scope=self._clients.scope(),
            model=str(entry.get("modelArn") or ""), state=STATES.get(word, "unknown"), native_state=word,
            created_at=utc(entry.get("creationTime")), hourly_cost_usd=price.usd * units if price else None,
            raw=plain(dict(entry)),
        )  # fmt: skip
