"""The pages about clusters describe the settings and overrides that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloudtune_providers.slurm import options as slurm
from cloudtune_providers.ssh import options as ssh

DOCS = Path(__file__).resolve().parents[2] / "docs"
OPTIONS: dict[str, Any] = {"slurm": slurm.Options, "ssh": ssh.Options}


@pytest.mark.parametrize("name", OPTIONS)
def test_settings_of_the_page_are_accepted(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    (settings,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    OPTIONS[name].model_validate(tomllib.loads(settings)["backends"][name])
    table = page.partition("| setting | meaning |")[2].partition("\n\n")[0]
    named = set(
        re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines() if line.count("|") > 2))
    )
    assert named <= set(OPTIONS[name].model_fields)
    assert {"folder", "python", "host"} <= named


def test_overrides_of_the_slurm_page_are_accepted() -> None:
    from ruamel.yaml import YAML

    page = (DOCS / "slurm.md").read_text(encoding="utf-8")
    (overrides,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    found = slurm.Overrides.model_validate(YAML(typ="safe").load(overrides)["overrides"]["slurm"])
    assert found.time == 12 * 3600
