"""Module names in strings are imports that import-linter and type checkers cannot see. Only seams may have them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.syntax import nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = tuple(REPOSITORY / root for root in ("src", "providers", "local_backend"))
PACKAGES = ("cloudtune", "cloudtune_emulator", "cloudtune_local", "cloudtune_providers", "cloudtune_trainer")

REGISTRIES = ("src/cloudtune/registry.py", "src/cloudtune/plugins.py")
"""The tables of what this distribution's own packages add to the core."""
SEAMS: dict[str, dict[str, str]] = {
    "src/cloudtune/cli/main.py": {"cloudtune.cli": "loads only the module of the command that is called"},
    "src/cloudtune/cli/data.py": {"cloudtune.cli": "loads only the module of the command that is called"},
    "src/cloudtune/cli/emulate.py": {"cloudtune_emulator": "the command works only where the extra is installed"},
    "src/cloudtune/cli/serve.py": {
        "cloudtune_emulator.model_server": "the command works only where the extra is installed"
    },
    "src/cloudtune/data/__init__.py": {"cloudtune.data": "loads a public name when it is first used"},
    "src/cloudtune/data/checks/chat_template.py": {
        "cloudtune_trainer.template_sandbox": "templates are counted within the bounds that training gives them",
    },
    "src/cloudtune/data/checks/tokens.py": {
        "cloudtune_trainer.gguf_tokenizer": "reads a GGUF tokenizer only where the trainer's extra is installed",
    },
    "src/cloudtune/data/checks/worker_pool.py": {"cloudtune.data.checks.worker": "starts it as a program"},
    "src/cloudtune/data/read/arrow.py": {"cloudtune.data.read.columnar_worker": "starts it as a program"},
    "src/cloudtune/testing/fork_server.py": {
        "cloudtune.testing.fork_server": "starts it as a program",
        "cloudtune.client": "is imported before the fork, in the program only",
        "cloudtune.data.checks.preparing": "is imported before the fork, in the program only",
        "cloudtune.ledger.sqlite": "is imported before the fork, in the program only",
    },
    "src/cloudtune/testing/contract/harness.py": {"cloudtune.testing.world": "an error message refers to its docs"},
    "src/cloudtune/testing/contract/plan_clauses.py": {
        "cloudtune.testing.contract.children": "is called in another process",
    },
    "src/cloudtune/testing/scripted_world.py": {"cloudtune.testing.scripted_world": "is called in another process"},
    "local_backend/cloudtune_trainer/worker/creation.py": {"cloudtune_trainer.worker": "starts it as a program"},
    "local_backend/cloudtune_trainer/worker/batch.py": {"cloudtune_trainer.worker.batch": "its usage message"},
    "providers/cloudtune_providers/run_folders/access.py": {
        "cloudtune_trainer": "the packages whose modules travel to another machine",
        "cloudtune_trainer.worker.access": "is run on another machine",
    },
    "providers/cloudtune_providers/ray/translate.py": {"cloudtune_trainer.ray": "a Ray job starts it as a program"},
    "local_backend/cloudtune_trainer/ray/__main__.py": {"cloudtune_trainer.ray": "its usage message"},
    "local_backend/cloudtune_trainer/ray/member.py": {"cloudtune_trainer": "starts the trainer as a program"},
    "providers/cloudtune_providers/slurm/script.py": {
        "cloudtune_trainer.worker.batch": "the batch script starts it as a program",
    },
    "local_backend/cloudtune_trainer/worker/__main__.py": {"cloudtune_trainer.worker": "its usage message"},
    "local_backend/cloudtune_trainer/worker/trainer_process.py": {
        "cloudtune_trainer": "starts the trainer as a program, in another interpreter too",
        "cloudtune_trainer.__main__": "starts the trainer as a program, in another interpreter too",
    },
    "local_backend/cloudtune_trainer/launch.py": {"cloudtune_trainer": "starts itself once for each device"},
    "local_backend/cloudtune_trainer/sagemaker/container_group.py": {
        "cloudtune_trainer": "starts itself once for each device",
    },
    "local_backend/cloudtune_trainer/sagemaker/serving.py": {
        "cloudtune_trainer.sagemaker.serving": "the file that the inference image loads from the model's archive",
    },
    "local_backend/cloudtune_trainer/submit/bundle.py": {
        "cloudtune_trainer": "the folder of the package in the archive",
        "cloudtune_trainer.sagemaker.entrypoint": "is run where the archive was unpacked",
    },
}
"""File -> the modules that it names in strings, each with the reason."""

_NAME = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)*(?![\w/-])")


@cache
def modules() -> frozenset[str]:
    """Every module and package, by its dotted name."""
    paths = [(path, path.relative_to(root)) for root in ROOTS for path in root.rglob("*.py")]
    return frozenset(
        ".".join((path.parent if path.stem == "__init__" else path.with_suffix("")).parts) for _, path in paths
    )


def named_in(syntax: Sequence[ast.AST]) -> set[str]:
    """The modules of ours that the strings of a file name. Docstrings do not count."""
    prose = {id(node.value) for node in syntax if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    found: set[str] = set()
    for node in syntax:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found |= {module for text in _NAME.findall(node.value) if (module := _module(text, node.value))}
    return found


def _module(name: str, text: str) -> str | None:
    """The module that a name stands for. None if it is something else, such as a file or a group of entry points."""
    if "." not in name:
        is_begun = text.endswith(f"{name}.")  # the rest of the name is in a variable
        return name if is_begun or (name != "cloudtune" and name == text) else None
    known = name
    while known not in modules() and known.count(".") > 1:
        known = known.rpartition(".")[0]
    if known in modules():
        return known
    return None if name.startswith("cloudtune.") else name


@cache
def found() -> dict[str, set[str]]:
    """File -> the modules that it names, for every file but the registries."""
    paths = {path.relative_to(REPOSITORY).as_posix(): path for root in ROOTS for path in sorted(root.rglob("*.py"))}
    named = {where: named_in(nodes(path)) for where, path in paths.items() if where not in REGISTRIES}
    return {where: names for where, names in named.items() if names}


def test_only_seams_name_modules_in_strings() -> None:
    others = {where: unlisted for where, names in found().items() if (unlisted := names - set(SEAMS.get(where, ())))}
    assert not others, "import the module; if that is not possible, list it here with the reason"


def test_every_seam_is_still_used() -> None:
    unused = {where: idle for where, names in SEAMS.items() if (idle := set(names) - found().get(where, set()))}
    assert not unused


def test_every_named_module_exists() -> None:
    assert not {name for names in found().values() for name in names} - modules()


@pytest.mark.parametrize(
    "source",
    [
        'RESULTS = "cloudtune_trainer.worker.run"',
        'RESULTS = "cloudtune_trainer.worker.run:Run"',
        'RESULTS = "cloudtune_local.no_such_module"',
        'importlib.import_module("cloudtune_trainer.submit.plan")',
        'importlib.import_module(f"cloudtune_providers.{name}.backend")',
        'run("-c", "from cloudtune.data.read import arrow")',
        'MODULE = "cloudtune_emulator"',
        'command = [sys.executable, "-m", "cloudtune_trainer"]',
    ],
)
def test_a_planted_module_name_is_found(source: str) -> None:
    assert named_in([*ast.walk(ast.parse(source))])


@pytest.mark.parametrize(
    "source",
    [
        '"""See cloudtune_trainer.worker.run."""',
        "from cloudtune_trainer.worker.run import Run",
        'FILE = "cloudtune.toml"',
        'GROUP = "cloudtune.backends"',
        'FIX = "pip install cloudtune[local]"',
        'PATH = "cloudtune_trainer/run.py"',
    ],
)
def test_other_strings_are_let_pass(source: str) -> None:
    assert not named_in([*ast.walk(ast.parse(source))])
