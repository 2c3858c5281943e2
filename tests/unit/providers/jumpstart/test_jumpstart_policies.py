"""The documents for roles: no more than what is called, and AWS's own buckets to be read only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cloudtune_providers.aws import scaling
from cloudtune_providers.aws import training_policies as statements
from cloudtune_providers.jumpstart import policies
from cloudtune_providers.jumpstart.options import JumpStartOptions

PROVIDERS = Path(policies.__file__).parents[1]
ROLE = "arn:aws:iam::123456789012:role/cloudtune"


def made(**options: Any) -> dict[str, Any]:
    given = JumpStartOptions.model_validate({"bucket": "rows", "role_arn": ROLE} | options)
    texts = policies.documents(given, account="123456789012", region="eu-west-1")
    return {name: json.loads(text)["Statement"] for name, text in texts.items()}


def actions(statements: list[dict[str, Any]]) -> set[str]:
    return {one for s in statements for one in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}


def test_the_caller_may_what_the_back_end_calls() -> None:
    from botocore.session import get_session

    runtime = set(get_session().get_service_model("sagemaker-runtime").operation_names)
    known = set(get_session().get_service_model("sagemaker").operation_names) | runtime
    assert set(policies.CALLER) <= known
    shared = ("training_jobs", "endpoints", "components", "streams")
    rooms = [*(PROVIDERS / "jumpstart").glob("*.py"), *(PROVIDERS / "aws" / f"{name}.py" for name in shared)]
    text = "\n".join(path.read_text() for path in rooms)
    called = {
        "".join(part.title() for part in name.split("_"))
        for name in re.findall(r"(?:_client|client\(\"sagemaker(?:-runtime)?\"\))\.([a-z_]+)\(", text)
    }
    assert {"CreateTrainingJob", "DescribeHubContent", "CreateInferenceComponent"} <= called & known
    assert called & known <= set(policies.CALLER)


def test_awss_buckets_are_read_and_never_written() -> None:
    for statement in made()["jumpstart-role-policy.json"]:
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            if "-cache-prod-" in resource:
                assert resource.startswith(("arn:aws:s3:::jumpstart-cache-prod-eu-west-1",
                                            "arn:aws:s3:::jumpstart-private-cache-prod-eu-west-1"))  # fmt: skip
                assert actions([statement]) <= {"s3:GetObject", "s3:ListBucket"}
            if "s3:PutObject" in statement["Action"]:
                assert resource == "arn:aws:s3:::rows/cloudtune/*"


def test_only_the_service_takes_the_role_on() -> None:
    (statement,) = made()["jumpstart-role-trust.json"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    assert "kms:Decrypt" in actions(made(kms_key="k")["jumpstart-role-policy.json"])
    assert "kms:Decrypt" not in actions(made()["jumpstart-role-policy.json"])


def test_the_caller_may_what_scales_an_endpoint() -> None:
    """Every call of the plans that make copies follow the questions, and of the finds between them."""
    from botocore.session import get_session

    wanted = set()
    for step in (*scaling.steps("e", "t", scaling.Copies(0, 1, 60.0, 300)), *scaling.steps_back("e")):
        service, _, call = step.request["call"].partition(".")
        wanted.add(f"{service}:{''.join(part.title() for part in call.split('_'))}")
    wanted |= {"application-autoscaling:DescribeScalableTargets", "application-autoscaling:DescribeScalingPolicies",
               "cloudwatch:DescribeAlarms", "iam:CreateServiceLinkedRole"}  # fmt: skip
    assert wanted <= actions(made()["jumpstart-caller-policy.json"])
    for service, calls in (("application-autoscaling", statements.SCALING), ("cloudwatch", statements.ALARMS)):
        assert set(calls) <= set(get_session().get_service_model(service).operation_names)
