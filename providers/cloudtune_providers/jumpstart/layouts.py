"""The layout of rows in S3 for JumpStart's scripts: a separate folder for each split, without other files. Pure.

Instruction and response with ``template.json``, dialogs, or plain text
(docs.aws.amazon.com/sagemaker/latest/dg/jumpstart-foundation-models-fine-tuning-instruction-based.html and
...-domain-adaptation.html, seen 2026-11-21). A job without a training channel would train on AWS's own default rows,
so there always is one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

from cloudtune.data.checks.targets import Target
from cloudtune.plan import Step, output_ref

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_providers.jumpstart.document import Hyper
    from cloudtune_providers.jumpstart.options import JumpStartOptions

Layout = Literal["chat", "instruction", "text"]
NAME = "jumpstart"
TEMPLATE = {
    "prompt": "### Instruction:\n{instruction}\n\n### Context:\n{context}\n\n### Response:\n",
    "completion": "{response}",
}
"""Always written, so the result does not depend on the default of the scripts' version."""
FORMATS: dict[Layout, str] = {
    "chat": "jumpstart-chat", "instruction": "jumpstart-instruction", "text": "cloudtune",
}  # fmt: skip
_CHAT = Target(NAME, {"sft": FORMATS["chat"], "cpt": FORMATS["text"]})
TARGETS: dict[Layout, Target] = {
    "chat": _CHAT, "instruction": Target("jumpstart-instruction", {"sft": FORMATS["instruction"]}), "text": _CHAT,
}  # fmt: skip
SWITCHES: dict[Layout, dict[str, str]] = {
    # The script fails if both are True.
    "chat": {"chat_dataset": "True", "instruction_tuned": "False"},
    "instruction": {"chat_dataset": "False", "instruction_tuned": "True"},
    "text": {"chat_dataset": "False", "instruction_tuned": "False"},
}
CHANNELS = {"train": "training", "validation": "validation"}
LISTING_LIMIT_S = 120.0


def layout_of(spec: JobSpec, known: Mapping[str, Hyper] | None) -> Layout:
    """The layout of a spec's rows: by default dialogs if the document supports them."""
    if spec.method.name == "cpt":
        return "text"
    given = spec.overrides.get(NAME, {}).get("layout")
    if given is not None:
        return "chat" if given == "chat" else "instruction"
    return "chat" if known is None or "chat_dataset" in known else "instruction"


def switches(layout: Layout, known: Mapping[str, Hyper]) -> dict[str, str]:
    """The hyperparameters that set the script's layout, if it has them."""
    return {name: value for name, value in SWITCHES[layout].items() if name in known}


def template_of(spec: JobSpec) -> dict[str, str]:
    """The content of ``template.json``."""
    return dict(spec.overrides.get(NAME, {}).get("template") or TEMPLATE)


def steps_of(request: PlanRequest, options: JumpStartOptions, layout: Layout) -> list[Step]:
    """Encode and upload each split into its folder, and check that it has no other files."""
    found: list[Step] = []
    for split in ("train", "validation"):
        if split in request.data.splits:
            found += _split_steps(request, options, split, layout)
    return found


def folder_of(request: PlanRequest, options: JumpStartOptions, split: str, layout: Layout) -> str:
    """The folder of one split, named by its content: equal rows in the same layout share one."""
    rows = request.data.splits[split].sha256
    what = json.dumps([rows, layout, template_of(request.spec) if layout == "instruction" else None])
    return f"{options.prefix}/{NAME}/{hashlib.sha256(what.encode()).hexdigest()[:32]}/{split}/"


def _split_steps(request: PlanRequest, options: JumpStartOptions, split: str, layout: Layout) -> list[Step]:
    form, folder = FORMATS[layout], folder_of(request, options, split, layout)
    info = request.data.splits[split]
    name = "rows.json" if layout == "text" else "rows.jsonl"
    encode = Step(
        id=f"encode_{split}", kind="encode", title=f"write the {split} rows as {form}",
        request={"split": split, "format": form, "sha256": info.sha256},
    )  # fmt: skip
    where = {"call": "s3.put_object", "bucket": options.bucket}
    encoded = {part: output_ref(encode.id, part) for part in ("path", "sha256", "bytes")}
    upload = Step(
        id=f"upload_{split}", kind="upload", title=f"upload the {split} rows to s3://{options.bucket}/{folder}",
        once="atomic", token=info.sha256,
        request=where | {"key": folder + name} | encoded,
    )  # fmt: skip
    steps, keys = [encode, upload], [folder + name]
    if layout == "instruction" and split == "train":
        text = json.dumps(template_of(request.spec), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        known = {"content": text, "sha256": digest, "bytes": len(text.encode())}
        steps.append(
            Step(
                id="template",
                kind="upload",
                title="write the prompt template",
                once="atomic",
                token=digest,
                request=where | {"key": f"{folder}template.json"} | known,
            )
        )
        keys.append(f"{folder}template.json")
    folder_step = Step(
        id=f"folder_{split}", kind="await", title="check that the folder has no other files", limit_s=LISTING_LIMIT_S,
        request={"call": "s3.list_objects_v2", "bucket": options.bucket, "prefix": folder, "keys": sorted(keys)},
    )  # fmt: skip
    return [*steps, folder_step]


def channel(split: str, uri: Any) -> dict[str, Any]:
    """A channel of CreateTrainingJob."""
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": CHANNELS[split], "InputMode": "File", "DataSource": {"S3DataSource": source}}
