"""Application Auto Scaling for SageMaker: targets and policies, put, described and deleted by their names.

moto has no inference components. Targets of other services are not supported. Codes and shapes: botocore 1.44.5,
service model ``application-autoscaling``.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import shapes
from cloudtune_emulator.aws.errors import AwsError
from cloudtune_emulator.http import Reply
from cloudtune_emulator.sagemaker import naming, resources

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call
    from cloudtune_emulator.route import Handler

SERVICE = "application-autoscaling"
COPIES = "sagemaker:inference-component:DesiredCopyCount"
TARGET, _POLICY = "sm_scaling_target", "sm_scaling_policy"
_JSON = "application/x-amz-json-1.1"


def _refused(code: str, message: str) -> AwsError:
    return AwsError(400, code, message, protocol="json")


def _checked(call: Call) -> dict[str, Any]:
    body = call.body
    shape = shapes.model(SERVICE).operation_model(call.name.partition(".")[2]).input_shape
    if faults := list(shapes.ShapeValidator(json=True).faults(shape, body)):
        raise _refused("ValidationException", shapes.refusal(faults))
    if body["ServiceNamespace"] != "sagemaker":
        raise _refused("ValidationException", f"Only sagemaker scales here, and not {body['ServiceNamespace']}.")
    return body


def _answer(body: dict[str, Any]) -> Reply:
    return Reply(body=body, content_type=_JSON)


# -- targets -----------------------------------------------------------------------------------------------------------


def register(context: EmulatorContext, call: Call) -> Reply:
    """RegisterScalableTarget: creates a target, or changes the given fields of an existing one."""
    body, shelf = _checked(call), naming.shelf(call)
    _need_resource(context, call, body)
    key = _key(body)
    with context.store.alone():
        there = context.store.get(TARGET, shelf, key)
        if there is None:
            if body.get("MinCapacity") is None or body.get("MaxCapacity") is None:
                raise _refused("ValidationException", "A new target needs MinCapacity and MaxCapacity.")
            arn = f"arn:aws:{SERVICE}:{call.region}:{context.settings.aws_account}:scalable-target/{_number(key)}"
            there = {"id": key, "arn": arn, "region": call.region, "created": call.now, "at": call.now}
            context.store.add(TARGET, shelf, there)
        there |= {name: body[name] for name in ("MinCapacity", "MaxCapacity", "ResourceId", "ScalableDimension")
                  if body.get(name) is not None}  # fmt: skip
        if there["MinCapacity"] > there["MaxCapacity"]:
            context.store.remove(TARGET, shelf, key)
            raise _refused("ValidationException", "Maximum capacity cannot be less than minimum capacity.")
        context.store.save(TARGET, shelf, there)
    return _answer({"ScalableTargetARN": there["arn"]})


def describe_targets(context: EmulatorContext, call: Call) -> Reply:
    """DescribeScalableTargets."""
    body = _checked(call)
    wanted = body.get("ResourceIds")
    role = f"arn:aws:iam::{context.settings.aws_account}:role/aws-service-role/AWSServiceRoleForApplicationAutoScaling"
    shown = [
        {"ServiceNamespace": "sagemaker", "ResourceId": one["ResourceId"], "MinCapacity": one["MinCapacity"],
         "ScalableDimension": one["ScalableDimension"], "MaxCapacity": one["MaxCapacity"], "RoleARN": role,
         "CreationTime": naming.timestamp(context, one["created"]), "ScalableTargetARN": one["arn"]}
        for one in _of(context, call, TARGET, body)
        if wanted is None or one["ResourceId"] in wanted
    ]  # fmt: skip
    return _answer({"ScalableTargets": shown})


def deregister(context: EmulatorContext, call: Call) -> Reply:
    """DeregisterScalableTarget: also deletes its policies."""
    body, shelf = _checked(call), naming.shelf(call)
    with context.store.alone():
        if not context.store.remove(TARGET, shelf, _key(body)):
            raise _refused("ObjectNotFoundException", f"No scalable target found for {body['ResourceId']}.")
        for one in _of(context, call, _POLICY, body):
            if _key(one) == _key(body):
                context.store.remove(_POLICY, shelf, one["id"])
    return _answer({})


# -- policies ----------------------------------------------------------------------------------------------------------


def put_policy(context: EmulatorContext, call: Call) -> Reply:
    """PutScalingPolicy."""
    body, shelf = _checked(call), naming.shelf(call)
    if context.store.get(TARGET, shelf, _key(body)) is None:
        raise _refused("ObjectNotFoundException", f"No scalable target registered for {body['ResourceId']}.")
    if bool(body.get("StepScalingPolicyConfiguration")) != (body.get("PolicyType") == "StepScaling"):
        raise _refused("ValidationException", "The policy's type and its configuration do not fit together.")
    name = f"{_key(body)}/{body['PolicyName']}"
    with context.store.alone():
        there = context.store.get(_POLICY, shelf, name)
        if there is None:
            arn = (f"arn:aws:autoscaling:{call.region}:{context.settings.aws_account}:scalingPolicy:{_number(name)}:"
                   f"resource/sagemaker/{body['ResourceId']}:policyName/{body['PolicyName']}")  # fmt: skip
            there = {"id": name, "PolicyARN": arn, "created": call.now}
            context.store.add(_POLICY, shelf, there)
        context.store.save(_POLICY, shelf, there | body)
    return _answer({"PolicyARN": there["PolicyARN"], "Alarms": []})


def describe_policies(context: EmulatorContext, call: Call) -> Reply:
    """DescribeScalingPolicies."""
    body = _checked(call)
    shown = []
    for one in _of(context, call, _POLICY, body):
        if body.get("PolicyNames") and one["PolicyName"] not in body["PolicyNames"]:
            continue
        reported = {key: value for key, value in one.items() if key not in ("id", "created")}
        shown.append(reported | {"CreationTime": naming.timestamp(context, one["created"]), "Alarms": []})
    return _answer({"ScalingPolicies": shown})


def delete_policy(context: EmulatorContext, call: Call) -> Reply:
    """DeleteScalingPolicy."""
    body = _checked(call)
    if not context.store.remove(_POLICY, naming.shelf(call), f"{_key(body)}/{body['PolicyName']}"):
        raise _refused("ObjectNotFoundException", f"No scaling policy found for {body['ResourceId']}.")
    return _answer({})


# -- effects of the policies -------------------------------------------------------------------------------------------


def follows(context: EmulatorContext, call: Call, component: str) -> bool:
    """Whether a target-tracking policy scales its copies by the number of requests."""
    return _policy(context, call, component, "TargetTrackingScaling") is not None


def waking(context: EmulatorContext, call: Call, component: str) -> dict[str, Any] | None:
    """The step policy that adds copies."""
    return _policy(context, call, component, "StepScaling")


def _policy(context: EmulatorContext, call: Call, component: str, kind: str) -> dict[str, Any] | None:
    head = f"inference-component/{component}|{COPIES}/"
    held = context.store.all(_POLICY, naming.shelf(call))
    return next((one for one in held if one["id"].startswith(head) and one.get("PolicyType") == kind), None)


def _of(context: EmulatorContext, call: Call, kind: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        one for one in context.store.all(kind, naming.shelf(call))
        if all(body.get(key) in (None, one[key]) for key in ("ResourceId", "ScalableDimension"))
    ]  # fmt: skip


def _number(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, text))


def _key(body: dict[str, Any]) -> str:
    return f"{body['ResourceId']}|{body['ScalableDimension']}"


def _need_resource(context: EmulatorContext, call: Call, body: dict[str, Any]) -> None:
    """Check that the scaled resource exists."""
    kind, _, name = str(body["ResourceId"]).partition("/")
    if kind == "inference-component" and body["ScalableDimension"] == COPIES:
        found = resources.found(context, call, resources.COMPONENT, name)
    else:
        found = (
            resources.found(context, call, resources.ENDPOINT, name.partition("/")[0]) if kind == "endpoint" else None
        )
    if found is None:
        raise _refused(
            "ValidationException", f"{body['ResourceId']} does not exist, or cannot scale by this dimension."
        )


OPERATIONS: dict[str, Handler] = {
    "RegisterScalableTarget": register, "DescribeScalableTargets": describe_targets,
    "DeregisterScalableTarget": deregister, "PutScalingPolicy": put_policy,
    "DescribeScalingPolicies": describe_policies, "DeleteScalingPolicy": delete_policy,
}  # fmt: skip
