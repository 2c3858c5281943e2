"""The number of accelerators of SageMaker instance types, for dividing a batch among devices.

Source: aws.amazon.com/ec2/instance-types, accelerated computing. Settings must provide it for other types.
"""

from __future__ import annotations

_SIZES: dict[str, dict[str, int]] = {
    "g4dn": {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 4, "16xlarge": 1},
    "g5": {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 4, "16xlarge": 1, "24xlarge": 4,
           "48xlarge": 8},
    "g6": {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 4, "16xlarge": 1, "24xlarge": 4,
           "48xlarge": 8},
    "g6e": {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 4, "16xlarge": 1, "24xlarge": 4,
            "48xlarge": 8},
    "p3": {"2xlarge": 1, "8xlarge": 4, "16xlarge": 8},
    "p3dn": {"24xlarge": 8},
    "p4d": {"24xlarge": 8},
    "p4de": {"24xlarge": 8},
    "p5": {"4xlarge": 1, "48xlarge": 8},
    "p5e": {"48xlarge": 8},
    "p5en": {"48xlarge": 8},
}  # fmt: skip


def accelerators(instance_type: str) -> int | None:
    """The number of GPUs of a type such as ``ml.g5.2xlarge``; None if unknown."""
    _, family, size = (*instance_type.split("."), "", "")[:3]
    return _SIZES.get(family, {}).get(size)


def family_of(instance_type: str) -> str:
    """``g5`` of ``ml.g5.2xlarge``."""
    return (*instance_type.split("."), "")[1]
