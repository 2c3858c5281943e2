"""Plans that deploy and undeploy a model on SageMaker. Pure.

A model is on a dedicated endpoint; or in an inference component, on a dedicated endpoint that scales with requests or
on an existing one; or it is an adapter on a shared base model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.plan import DataReport, Plan, Resolved, Step, output_ref
from cloudtune_providers.aws import scaling
from cloudtune_providers.aws.endpoints import KINDS
from cloudtune_providers.aws.labels import BACKEND_TAG, BASE_TAG, COPIES_TAG, MODEL_TAG
from cloudtune_providers.aws.names import tag_list, tags_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloudtune.cost import CostEstimate
    from cloudtune.errors import Problem
    from cloudtune.plan import Setting
    from cloudtune.state import Deployment
    from cloudtune_providers.aws.scaling import Copies

Body = dict[str, Any]
COMPONENT, GONE = "component", "component_gone"


class Aim(NamedTuple):
    """The model of a deployment, its name, and its submission."""

    backend: str
    scope: str
    name: str
    model: str
    token: str
    tags: Mapping[str, str]
    limit_s: float
    warnings: tuple[Problem, ...] = ()
    cost: CostEstimate | None = None
    settings: tuple[Setting, ...] = ()

    def labels(self, **more: str) -> list[dict[str, str]]:
        """The tags of new resources."""
        own = {MODEL_TAG: self.model, BACKEND_TAG: self.backend}
        return tag_list(tags_of(self.token, self.name, self.tags, own, more), upper=True)


class Part(NamedTuple):
    """An inference component."""

    specification: Body
    """The specification in CreateInferenceComponent, without the model's name."""
    endpoint: str
    variant: str = "AllTraffic"
    copies: int = 1


def alone(aim: Aim, bodies: Mapping[str, Body]) -> Plan:
    """Deploy on a dedicated endpoint. ``bodies`` has ``model``, ``config`` and ``endpoint``, without names and tags."""
    made = [_make(kind, aim.name, body, aim.labels(), aim.token) for kind, body in bodies.items()]
    return _deploy(aim, [*made, _until_answers("ready", aim)])


def on_endpoint(aim: Aim, model: Body, part: Part, copies: Copies | None) -> Plan:
    """Deploy as a component on an existing endpoint."""
    labels = aim.labels(**_copies(copies))
    return _deploy(aim, [_make("model", aim.name, model, labels, aim.token), *_component(aim, part, labels, copies)])


def scaled(aim: Aim, bodies: Mapping[str, Body], part: Part, copies: Copies) -> Plan:
    """Deploy on a dedicated endpoint, in a component whose copies scale with the requests."""
    labels = aim.labels(**_copies(copies))
    made = [_make(kind, aim.name, body, labels, aim.token) for kind, body in bodies.items()]
    return _deploy(aim, [*made, _until_answers("endpoint_ready", aim), *_component(aim, part, labels, copies)])


def adapter(aim: Aim, base: Aim, bodies: Mapping[str, Body], base_part: Part, part: Part) -> Plan:
    """Deploy as an adapter of ``base``, whose endpoint is created if missing, with the same steps for all adapters."""
    labels = base.labels()
    steps = [_make(kind, base.name, body, labels, base.token) for kind, body in bodies.items()]
    steps += [_until_answers("endpoint_ready", base)]
    steps += _component(base, base_part, labels, None, ids=("base", "base_ready"))
    own = aim.labels(**{BASE_TAG: base.name})
    return _deploy(aim, [*steps, *_component(aim, part, own, None)])


def removal(deployment: Deployment, token: str) -> Plan:
    """Delete in this order: the scaling that would start it, billed resources, then their parts."""
    held: Mapping[str, Any] = deployment.raw.get("cloudtune") or {}
    name, steps = deployment.id, list[Step]()
    if "copies" in held:
        steps += scaling.steps_back(name)
    if "component" in held:
        steps.append(_unmake("inference_component", str(held["component"]), f"remove_{COMPONENT}"))
    if held.get("component") and held.get("endpoint") == name:
        # An endpoint is deleted only once no component is on it.
        steps.append(
            Step(id=GONE, kind="await", title=f"wait until {name} is removed from its endpoint", limit_s=_GOING_S,
                 request={"call": "sagemaker.describe_inference_component", "name": name, "until": "gone"})
        )  # fmt: skip
    if "component" not in held or held.get("endpoint") == name:
        for kind, what in (("endpoint", name), ("config", str(held.get("config") or name))):
            steps.append(_unmake(KINDS[kind][0], what, f"remove_{kind}"))
    if "base" not in held:
        steps.append(_unmake("model", str(held.get("model") or name), "remove_model"))
    return _plan("remove", deployment.backend, deployment.scope, name, token, steps)


_GOING_S = 3600.0


def _copies(copies: Copies | None) -> dict[str, str]:
    return {COPIES_TAG: copies.text} if copies else {}


def _component(
    aim: Aim, part: Part, labels: list[dict[str, str]], copies: Copies | None,
    ids: tuple[str, str] = (COMPONENT, "component_ready"),
) -> list[Step]:  # fmt: skip
    specification = dict(part.specification)
    if "BaseInferenceComponentName" not in specification:
        specification = {"ModelName": output_ref("model", "name"), **specification}
    body: Body = {"InferenceComponentName": aim.name, "EndpointName": part.endpoint, "Specification": specification}
    if "BaseInferenceComponentName" not in specification:  # an adapter is on the endpoint of its base
        body |= {"VariantName": part.variant, "RuntimeConfig": {"CopyCount": part.copies}}
    create, ready = ids
    return [
        Step(id=create, kind="call", title=f"put {aim.name} on the endpoint {part.endpoint}", once="atomic",
             token=aim.token,
             request={"call": "sagemaker.create_inference_component", "body": {**body, "Tags": labels}}),
        Step(id=ready, kind="await", title=f"wait until {aim.name} is ready", limit_s=aim.limit_s,
             request={"call": "sagemaker.describe_inference_component", "name": output_ref(create, "name")}),
        *(scaling.steps(aim.name, aim.token, copies) if copies else ()),
    ]  # fmt: skip


def _make(kind: str, name: str, body: Body, labels: list[dict[str, str]], token: str) -> Step:
    call, field, _ = KINDS[kind]
    request = {"call": f"sagemaker.create_{call}", "body": {field: name, **body, "Tags": labels}}
    title = f"create the {call.replace('_', ' ')} {name}"
    return Step(id=kind, kind="call", title=title, once="atomic", token=token, request=request)


def _until_answers(step_id: str, aim: Aim) -> Step:
    what = "answers" if step_id == "ready" else "is in service"
    return Step(id=step_id, kind="await", title=f"wait until {aim.name} {what}", limit_s=aim.limit_s,
                request={"call": "sagemaker.describe_endpoint", "name": output_ref("endpoint", "name")})  # fmt: skip


def _unmake(call: str, name: str, step_id: str) -> Step:
    return Step(id=step_id, kind="call", title=f"delete the {call.replace('_', ' ')} {name}", once="atomic",
                request={"call": f"sagemaker.delete_{call}", "name": name})  # fmt: skip


def _deploy(aim: Aim, steps: Iterable[Step]) -> Plan:
    return _plan(
        "deploy", aim.backend, aim.scope, aim.name, aim.token, steps, warnings=aim.warnings, cost=aim.cost,
        settings=aim.settings,
    )  # fmt: skip


def _plan(
    purpose: Any, backend: str, scope: str, name: str, token: str, steps: Iterable[Step], **more: Any
) -> Plan:  # fmt: skip
    return Plan(
        purpose=purpose, name=name, backend=backend, scope=scope, key=token, attempt=1, token=token, spec={},
        steps=tuple(steps), data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope=scope), **more,
    )  # fmt: skip
