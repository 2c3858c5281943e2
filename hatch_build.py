"""Compiles the one C file when cloudtune is built. Without a compiler cloudtune works all the same, but more slowly."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/cloudtune/data/_conversations.c"


class CompiledConversations(BuildHookInterface):
    """Puts the compiled module beside its source, where editable installs find it, and into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say that the wheel is for this system then."""
        source = Path(self.root, SOURCE)
        try:
            built = compiled(source)
        except Exception as error:  # noqa: BLE001 - whatever a compiler and its settings may raise
            self.app.display_warning(f"{SOURCE} was not compiled, data will be checked more slowly: {error}")
            return
        build_data["artifacts"].append(f"src/cloudtune/data/{built.name}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compiled(source: Path) -> Path:
    """The module made of the C file, in the same folder. It works with every CPython from 3.11 on."""
    from setuptools import Distribution, Extension

    name = f"cloudtune.data.{source.stem}"
    with tempfile.TemporaryDirectory() as work:
        command = Distribution({
            "name": "cloudtune", "ext_modules": [Extension(name, [str(source)], py_limited_api=True)],
        }).get_command_obj("build_ext")  # fmt: skip
        command.build_lib = command.build_temp = work
        command.ensure_finalized()
        command.run()
        (made,) = Path(work, *name.split(".")[:-1]).glob(f"{source.stem}.*")
        # Aside first: a process that has the old one loaded keeps it whole.
        aside = source.with_name(f".{made.name}")
        shutil.copyfile(made, aside)
        return aside.rename(source.with_name(made.name))
