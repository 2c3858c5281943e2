"""The management plane's paths. The data plane's are OpenAI's, under ``/openai/v1`` and ``/openai``."""

from __future__ import annotations

import re

from cloudtune_emulator.azure import deployments, storage, workspace

_SUBSCRIPTION = r"/subscriptions/(?P<subscription>[^/]+)"
_ACCOUNT = (
    _SUBSCRIPTION
    + r"/resourcegroups/(?P<group>[^/]+)/providers/Microsoft\.CognitiveServices/accounts/(?P<account>[^/]+)"
)
_WORKSPACE = (
    _SUBSCRIPTION
    + r"/resourcegroups/(?P<group>[^/]+)/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace>[^/]+)"
)
_STORE = _WORKSPACE + r"/datastores/(?P<datastore>[^/]+)"
_ML_JOB = _WORKSPACE + r"/jobs/(?P<job>[^/]+)"
_ONE = _ACCOUNT + r"/deployments/(?P<deployment>[^/]+)"
_RESULT = (
    _SUBSCRIPTION + r"/providers/Microsoft\.CognitiveServices/locations/[^/]+/operationResults/(?P<deployment>[^/]+)"
)

# Resource paths do not depend on case (learn.microsoft.com, Azure Resource Manager, seen 2026-11-21).
ROUTES = tuple(
    (method, re.compile(pattern, re.IGNORECASE), name, handler)
    for method, pattern, name, handler in (
        ("GET", _ACCOUNT, "account.get", deployments.account),
        ("GET", _ACCOUNT + "/deployments", "deployments.list", deployments.list_),
        ("PUT", _ONE, "deployments.create", deployments.put),
        ("GET", _ONE, "deployments.get", deployments.get),
        ("DELETE", _ONE, "deployments.delete", deployments.delete),
        ("GET", _ONE + "/skus", "deployments.skus", deployments.skus),
        ("GET", _RESULT, "deployments.result", deployments.operation),
        ("GET", _WORKSPACE, "workspace.get", workspace.get_workspace),
        ("GET", _STORE, "datastores.get", storage.get_store),
        ("POST", _STORE + "/listSecrets", "datastores.secrets", storage.list_secrets),
        ("GET", "/history/v1.0" + _WORKSPACE + r"/runs/(?P<job>[^/]+)/details", "mlruns.get", workspace.run_details),
        ("GET", _WORKSPACE + "/jobs", "mljobs.list", workspace.list_),
        ("PUT", _ML_JOB, "mljobs.create", workspace.put),
        ("GET", _ML_JOB, "mljobs.get", workspace.get),
        ("POST", _ML_JOB + "/cancel", "mljobs.cancel", workspace.cancel),
        ("DELETE", _ML_JOB, "mljobs.delete", workspace.delete),
    )
)
