"""AWS's training and inference images by region. The only module that uses the sagemaker SDK.

Accounts and tags as in sagemaker-core 2.27.0's ``image_uri_config`` (seen 2026-11-21); if the SDK is installed, the
tests compare the table with it. It is imported only for regions that the table lacks, as this takes seconds and memory.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

from cloudtune.errors import ConfigError, Problem
from cloudtune.install_command import install_command

_USUAL = "763104351884"
_ACCOUNTS = {
    "af-south-1": "626614931356", "ap-east-1": "871362719292", "ap-northeast-3": "364406365360",
    "ap-southeast-3": "907027046896", "ca-west-1": "204538143572", "cn-north-1": "727897471807",
    "cn-northwest-1": "727897471807", "eu-south-1": "692866216735", "il-central-1": "780543022126",
    "me-central-1": "914824155844", "me-south-1": "217643126080", "us-gov-east-1": "446045086412",
    "us-gov-west-1": "442386744353",
    **dict.fromkeys((
        "ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1",
        "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2",
        "us-west-1", "us-west-2",
    ), _USUAL),
}  # fmt: skip
_IMAGES = {
    ("training", "gpu"): "huggingface-pytorch-training:2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04",
    ("training", "cpu"): "pytorch-training:2.9.0-cpu-py312",
    ("inference", "gpu"): "huggingface-pytorch-inference:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04",
    ("inference", "cpu"): "huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04",
    # aws.github.io/deep-learning-containers/reference/available_images, seen 2026-11-21: of CUDA 12.8, since
    # those of CUDA 13 need a machine image of their own.
    ("adapters", "gpu"): "djl-inference:0.36.0-lmi18.0.0-cu128",
}
_TRAINERS = ("huggingface", "5.3.0", "pytorch2.9.0", "py312")
_SERVERS = ("huggingface", "5.5.3", "pytorch2.6.0", "py312")
_PLAIN = ("pytorch", "2.9.0", None, "py312")
_FRAMEWORKS: dict[tuple[str, str], tuple[tuple[str, str, str | None, str | None], ...]] = {
    ("training", "gpu"): (_TRAINERS, _PLAIN),
    ("training", "cpu"): (_PLAIN,),
    ("inference", "gpu"): (_SERVERS,),
    ("inference", "cpu"): (_SERVERS,),
    ("adapters", "gpu"): (("djl-lmi", "0.36.0", None, None),),
}
"""Frameworks that are requested from the SDK, in order. Newer regions have only PyTorch's image; the trainer installs
the packages that an image lacks."""
_TYPICAL = {"gpu": "ml.g5.xlarge", "cpu": "ml.m5.xlarge"}
Scope = Literal["training", "inference", "adapters"]
"""``adapters`` is AWS's LMI, which serves a base model with the adapters of several jobs (docs.djl.ai)."""


def image_uri(scope: Scope, region: str, instance_type: str, *, gpu: bool, setting: str) -> str:
    """The image's URI: from the table, or for other regions from the SDK if it is installed."""
    kind = (scope, "gpu" if gpu else "cpu")
    account = _ACCOUNTS.get(region)
    if account is not None:
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return f"{account}.dkr.ecr.{region}.{domain}/{_IMAGES[kind]}"
    if _has_sdk():
        return _ask_sdk(kind, region, instance_type)
    raise ConfigError([Problem(
        code="setting", field=f"backends.sagemaker.{setting}",
        message=f"cloudtune does not know AWS's {scope} image for {region}",
        fix=f"set an image, or install the SDK, which knows more images: {install_command('sagemaker')}",
    )])  # fmt: skip


def _has_sdk() -> bool:
    try:
        return importlib.util.find_spec("sagemaker.core") is not None
    except ModuleNotFoundError:
        return False


def _ask_sdk(kind: tuple[str, str], region: str, instance_type: str) -> str:
    """The first image that the region has. The SDK reads only its own files: no credentials, no network."""
    from sagemaker.core import image_uris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    refused: list[Exception] = []
    for framework, version, base, python in _FRAMEWORKS[kind]:
        try:
            address = str(
                image_uris.retrieve(
                    framework, region, version=version, py_version=python,
                    image_scope="inference" if kind[0] == "adapters" else kind[0],
                    instance_type=_telling(kind[1], instance_type), base_framework_version=base,
                )
            )  # fmt: skip
            # Its newest LMI is of CUDA 13, see above: only the region's account is used.
            return f"{address.partition('/')[0]}/{_IMAGES[kind]}" if kind[0] == "adapters" else address
        except ValueError as error:
            refused.append(error)
    problem = f"the SDK has no {kind[0]} image for {region}: {refused[0]}"
    raise ConfigError(problem, hint="set an image") from refused[0]


def _telling(processor: str, instance_type: str) -> str:
    """An instance type with that processor, because the SDK derives the processor from the type."""
    is_gpu = instance_type.startswith(("ml.g", "ml.p"))
    return instance_type if instance_type and is_gpu == (processor == "gpu") else _TYPICAL[processor]
