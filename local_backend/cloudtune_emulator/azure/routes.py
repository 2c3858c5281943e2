"""The management plane's paths. The data plane uses OpenAI's paths, under ``/openai/v1`` and ``/openai``."""

from __future__ import annotations

from cloudtune_emulator.azure import deployments, storage, workspace
from cloudtune_emulator.route_table import RouteTable

_SUBSCRIPTION = "/subscriptions/<subscription>"
_ACCOUNT = _SUBSCRIPTION + "/resourcegroups/<group>/providers/Microsoft.CognitiveServices/accounts/<account>"
_WORKSPACE = (
    _SUBSCRIPTION + "/resourcegroups/<group>/providers/Microsoft.MachineLearningServices/workspaces/<workspace>"
)
_STORE = _WORKSPACE + "/datastores/<datastore>"
_ML_JOB = _WORKSPACE + "/jobs/<job>"
_ONE = _ACCOUNT + "/deployments/<deployment>"
_RESULT = _SUBSCRIPTION + "/providers/Microsoft.CognitiveServices/locations/<location>/operationResults/<deployment>"

# Resource paths do not depend on case (learn.microsoft.com, Azure Resource Manager, seen 2026-11-21).
ROUTES = RouteTable(
    ("GET", _ACCOUNT, "account.get", deployments.account),
    ("GET", _ACCOUNT + "/models", "account.models", deployments.base_models),
    ("GET", _ACCOUNT + "/deployments", "deployments.list", deployments.list_),
    ("PUT", _ONE, "deployments.create", deployments.put),
    ("GET", _ONE, "deployments.get", deployments.get),
    ("DELETE", _ONE, "deployments.delete", deployments.delete),
    ("GET", _ONE + "/skus", "deployments.skus", deployments.skus),
    ("GET", _RESULT, "deployments.result", deployments.operation),
    ("GET", _WORKSPACE, "workspace.get", workspace.get_workspace),
    ("GET", _STORE, "datastores.get", storage.get_store),
    ("POST", _STORE + "/listSecrets", "datastores.secrets", storage.list_secrets),
    ("GET", "/history/v1.0" + _WORKSPACE + "/runs/<job>/details", "mlruns.get", workspace.run_details),
    ("GET", _WORKSPACE + "/jobs", "mljobs.list", workspace.list_),
    ("PUT", _ML_JOB, "mljobs.create", workspace.put),
    ("GET", _ML_JOB, "mljobs.get", workspace.get),
    ("POST", _ML_JOB + "/cancel", "mljobs.cancel", workspace.cancel),
    ("DELETE", _ML_JOB, "mljobs.delete", workspace.delete),
    ignore_case=True,
)
