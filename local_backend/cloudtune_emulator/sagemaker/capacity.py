"""The number of copies of an inference component and of instances of its endpoint, as scaling policies change them.

After fifteen minutes without requests, the copies go down to the target's minimum. After ten more, instances without a
copy are removed. A request without a copy counts as NoCapacityInvocationFailures; the alarm on this metric triggers the
step policy, which adds a copy.
(docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html; for the times, scale down to zero in
SageMaker inference, aws.amazon.com/blogs/machine-learning; seen 2026-11-21.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import Call
from cloudtune_emulator.sagemaker import autoscaling, naming

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

IDLE_S = 900.0
RELEASE_S = 600.0
KIND = "sm_component"
NAMESPACE, METRIC = "AWS/SageMaker", "NoCapacityInvocationFailures"


def begun(call: Call, wish: int) -> dict[str, Any]:
    """The initial record of a component: desired copies, since when, copies before, time of the last request."""
    return {"copies": wish, "since": call.now, "before": wish, "busy": call.now, "refused": None}


def wish(call: Call, thing: dict[str, Any], copies: int) -> None:
    """Change the desired number from now on; the caller saves the record."""
    _set(thing, copies, call.now)
    thing["busy"] = call.now


def count(context: EmulatorContext, call: Call, thing: dict[str, Any]) -> tuple[int, int]:
    """Desired and current copies."""
    is_ready = call.now >= thing["since"] + context.settings.deploying_s or thing["copies"] < thing["before"]
    return thing["copies"], thing["copies"] if is_ready else min(thing["before"], thing["copies"])


def ask(context: EmulatorContext, call: Call, thing: dict[str, Any]) -> bool:
    """Record a request, and return whether a copy can answer it. Counts the failure if none can."""
    with context.store.alone():
        fresh = context.store.get(KIND, naming.shelf(call), thing["id"]) or thing
        _, current = count(context, call, fresh)
        if current:
            fresh["busy"] = call.now
        elif fresh["refused"] is None and _waking_s(context, call, fresh["id"]) is not None:
            fresh["refused"] = call.now  # without an alarm, nothing is counted
        context.store.save(KIND, naming.shelf(call), fresh)
    if not current:
        _count_failure(context, call, thing["id"])
    return bool(current)


def instances(
    context: EmulatorContext, call: Call, endpoint: dict[str, Any], on_it: list[dict[str, Any]], managed: dict[str, Any]
) -> int:
    """Instances of a scaling variant: one for each copy; the minimum after a while without copies."""
    least, most = int(managed.get("MinInstanceCount", 1)), int(managed.get("MaxInstanceCount", 1))
    counts = [count(context, call, one)[0] for one in on_it if "copies" in one and not _is_adapter(one)]
    if sum(counts):
        return max(least, min(most, sum(counts)))
    since = max([endpoint["changed"], *(one["since"] for one in on_it if "since" in one)])
    return least if call.now >= since + RELEASE_S else max(least, 1)


def settle(context: EmulatorContext, now: float) -> None:
    """Record how the active policies have scaled each component until now."""
    for target in context.store.all(autoscaling.TARGET):
        if target["ScalableDimension"] != autoscaling.COPIES:
            continue
        call = Call(api="sagemaker", name="settle", region=target["region"], now=now)
        shelf, name = naming.shelf(call), target["ResourceId"].removeprefix("inference-component/")
        thing = context.store.get(KIND, shelf, name)
        if thing is None or _is_adapter(thing):
            continue
        before = dict(thing)
        _scale(context, call, thing, target)
        if thing != before:
            context.store.save(KIND, shelf, thing)


def _scale(context: EmulatorContext, call: Call, thing: dict[str, Any], target: dict[str, Any]) -> None:
    """The changes between the last one and now, in order."""
    while True:
        after = _waking_s(context, call, thing["id"]) if thing["copies"] == 0 and thing["refused"] is not None else None
        wakes = math.inf if after is None else thing["refused"] + after
        if call.now >= wakes:
            _set(thing, min(target["MaxCapacity"], 1), wakes)
            thing |= {"busy": wakes + context.settings.deploying_s, "refused": None}
            continue
        least, falls_asleep = target["MinCapacity"], max(thing["busy"], thing["since"], target["at"]) + IDLE_S
        if autoscaling.follows(context, call, thing["id"]) and thing["copies"] > least and call.now >= falls_asleep:
            _set(thing, least, falls_asleep)
            continue
        return


def _set(thing: dict[str, Any], copies: int, at: float) -> None:
    thing |= {"before": thing["copies"], "copies": copies, "since": at}


def _waking_s(context: EmulatorContext, call: Call, name: str) -> float | None:
    """The delay between a failure and the alarm that adds a copy; None without such an alarm."""
    policy = autoscaling.waking(context, call, name)
    if policy is None:
        return None
    alarms = [one for one in _alarms(context, call, name) if policy["PolicyARN"] in one.alarm_actions]
    return min((float(one.period) * int(one.evaluation_periods) for one in alarms), default=None)


def _alarms(context: EmulatorContext, call: Call, name: str) -> list[Any]:
    """moto's alarms on the component's failures."""
    backend = context.aws.backend("cloudwatch", call.region or context.settings.aws_region)
    return [
        one for one in list(backend.alarms.values())
        if (one.namespace, one.metric_name) == (NAMESPACE, METRIC)
        and [(dimension.name, dimension.value) for dimension in one.dimensions] == [("InferenceComponentName", name)]
    ]  # fmt: skip


def _count_failure(context: EmulatorContext, call: Call, name: str) -> None:
    """Publish the failure to CloudWatch, for alarms and users."""
    backend = context.aws.backend("cloudwatch", call.region or context.settings.aws_region)
    dimensions = [{"Name": "InferenceComponentName", "Value": name}]
    backend.put_metric_data(NAMESPACE, [{"MetricName": METRIC, "Dimensions": dimensions, "Value": 1.0}])
    for alarm in _alarms(context, call, name):
        backend.set_alarm_state(alarm.name, "Threshold Crossed", "{}", "ALARM")


def _is_adapter(thing: dict[str, Any]) -> bool:
    return bool((thing["request"].get("Specification") or {}).get("BaseInferenceComponentName"))
