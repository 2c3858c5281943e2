"""Scaling of the copies of an inference component: targets, policies and the alarm that starts a copy from zero.

Application Auto Scaling's target and policies, and CloudWatch's alarm, are identified by the component's name; putting
one again has no effect. Target tracking reduces the copies to zero without requests, and cannot scale up from zero: the
alarm on requests without a copy does, with a step policy
(docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html, seen 2026-11-21; botocore 1.44.5,
service models ``application-autoscaling`` and ``cloudwatch``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import Conflict, JobNotFound
from cloudtune.plan import Step, output_ref

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_providers.aws.clients import Clients

TARGET, TRACKING, WAKING, ALARM = "target", "tracking", "waking", "alarm"
_SCALER, _WATCH = "application-autoscaling", "cloudwatch"
_DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
_NAMESPACE = "AWS/SageMaker"
NO_CAPACITY = "NoCapacityInvocationFailures"
_WAKING_S = 60
"""The alarm's period, and the cooldown of the step policy."""


class Copies(NamedTuple):
    """The limits and the metric of the scaling."""

    least: int
    most: int
    requests_per_minute: float
    """Target number of requests per copy; above it, copies are added."""
    cooldown_s: int
    """Cooldown in seconds between two steps down."""

    @property
    def text(self) -> str:
        """As a tag."""
        return f"{self.least}-{self.most}"


def steps(name: str, token: str, copies: Copies) -> tuple[Step, ...]:
    """The steps that scale a component's copies with the requests; with ``least`` 0 to zero and back."""
    where = _where(name)
    tracked = {
        "TargetValue": copies.requests_per_minute, "ScaleInCooldown": copies.cooldown_s, "ScaleOutCooldown": _WAKING_S,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"},
    }  # fmt: skip
    made = [
        _step(TARGET, f"allow {name} {copies.least} to {copies.most} copies", token, "register_scalable_target",
              where | {"MinCapacity": copies.least, "MaxCapacity": copies.most}),
        _step(TRACKING, f"scale the copies of {name} with its requests", token, "put_scaling_policy",
              where | {"PolicyName": f"{name}-tracking", "PolicyType": "TargetTrackingScaling",
                       "TargetTrackingScalingPolicyConfiguration": tracked}),
    ]  # fmt: skip
    if copies.least == 0:
        made += [
            _step(WAKING, f"allow {name} to scale up from zero", token, "put_scaling_policy",
                  where | {"PolicyName": f"{name}-waking", "PolicyType": "StepScaling",
                           "StepScalingPolicyConfiguration": _WAKE}),
            _step(ALARM, f"start {name} on a request", token, "put_metric_alarm", _alarm(name), service=_WATCH),
        ]  # fmt: skip
    return tuple(made)


_WAKE = {
    "AdjustmentType": "ChangeInCapacity", "MetricAggregationType": "Maximum", "Cooldown": _WAKING_S,
    "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
}  # fmt: skip


def _alarm(name: str) -> dict[str, Any]:
    """One request without a copy is enough: AWS's own example waits for two within a minute."""
    return {
        "AlarmName": f"{name}-waking", "AlarmDescription": f"{name} received a request and has no copy",
        "AlarmActions": [output_ref(WAKING, "arn")], "Namespace": _NAMESPACE, "MetricName": NO_CAPACITY,
        "Dimensions": [{"Name": "InferenceComponentName", "Value": name}], "Statistic": "Sum", "Period": _WAKING_S,
        "EvaluationPeriods": 1, "DatapointsToAlarm": 1, "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold", "TreatMissingData": "missing",
    }  # fmt: skip


def steps_back(name: str) -> tuple[Step, ...]:
    """Delete the same resources, the alarm first: it must not start a copy that is being deleted."""
    where = _where(name)
    return (
        _step(f"remove_{ALARM}", f"delete the alarm {name}-waking", "", "delete_alarms",
              {"AlarmNames": [f"{name}-waking"]}, service=_WATCH),
        *(_step(f"remove_{step}", f"delete the scaling policy {name}-{step}", "", "delete_scaling_policy",
                where | {"PolicyName": f"{name}-{step}"}) for step in (WAKING, TRACKING)),
        _step(f"remove_{TARGET}", f"disable scaling of {name}", "", "deregister_scalable_target", where),
    )  # fmt: skip


def _where(name: str) -> dict[str, Any]:
    return {"ServiceNamespace": "sagemaker", "ResourceId": f"inference-component/{name}",
            "ScalableDimension": _DIMENSION}  # fmt: skip


def _step(
    step_id: str, title: str, token: str, call: str, body: dict[str, Any], *, service: str = _SCALER
) -> Step:  # fmt: skip
    return Step(id=step_id, kind="call", title=title, once="atomic", token=token,
                request={"call": f"{service}.{call}", "body": body})  # fmt: skip


class Scaling:
    """The scaling resources of one account and region. Thread-safe."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    @staticmethod
    def does(request: Mapping[str, Any]) -> bool:
        """Whether a step's request is for scaling."""
        return str(request.get("call", "")).partition(".")[0] in (_SCALER, _WATCH)

    def do(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put or delete one resource."""
        service, _, call = str(request["call"]).partition(".")
        body = request["body"]
        try:
            with self._clients.asking(_named(body)):
                response = getattr(self._clients.client(service), call)(**body)
        except JobNotFound:
            if not call.startswith(("delete_", "deregister_")):
                raise
            return {"name": _named(body)}  # a missing resource counts as deleted
        return _outputs(body, response.get("PolicyARN"))

    def find(self, request: Mapping[str, Any]) -> Found:
        """Return the alarm with that name. Raises Conflict if it watches something else."""
        _, _, call = str(request["call"]).partition(".")
        body = request["body"]
        there = self._there(call, body)
        if call.startswith(("delete_", "deregister_")):
            return Absent() if there else Done(outputs={"name": _named(body)})
        if there is None:
            return Absent()
        if call == "put_metric_alarm" and there.get("Dimensions") != body["Dimensions"]:
            raise Conflict(f"an alarm {body['AlarmName']!r} exists, but does not watch {body['Dimensions']}",
                           hint="use another name for the deployment")  # fmt: skip
        return Done(outputs=_outputs(body, there.get("PolicyARN"))) if _is_same(there, body) else Absent()

    def _there(self, call: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        with self._clients.asking(_named(body)):
            if "alarm" in call:
                names = body.get("AlarmNames") or [body["AlarmName"]]
                found = self._clients.client(_WATCH).describe_alarms(AlarmNames=names)["MetricAlarms"]
            else:
                scaler = self._clients.client(_SCALER)
                where = {key: body[key] for key in ("ServiceNamespace", "ScalableDimension")}
                if "PolicyName" in body:
                    where |= {"ResourceId": body["ResourceId"], "PolicyNames": [body["PolicyName"]]}
                    found = scaler.describe_scaling_policies(**where)["ScalingPolicies"]
                else:
                    found = scaler.describe_scalable_targets(ResourceIds=[body["ResourceId"]], **where)[
                        "ScalableTargets"
                    ]
        return dict(found[0]) if found else None


def _is_same(there: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether all requested fields match; fields that the service adds are ignored."""
    return all(_holds(there.get(key), value) for key, value in body.items())


def _holds(there: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_holds(there.get(key), value) for key, value in wanted.items())
    return bool(there == wanted)


def _outputs(body: Mapping[str, Any], arn: Any) -> dict[str, Any]:
    """Return the name of the deployment, whose last resource is the alarm."""
    watched = (body.get("Dimensions") or [{}])[0].get("Value")
    name = str(body.get("ResourceId") or watched or _named(body)).rpartition("/")[2]
    return {"name": name} | ({"arn": str(arn)} if arn else {})


def _named(body: Mapping[str, Any]) -> str:
    names = body.get("AlarmNames") or [body.get("AlarmName") or body.get("PolicyName") or body.get("ResourceId")]
    return str(names[0])
