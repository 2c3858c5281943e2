"""The house's own rules: who may import whom, how long things may grow, and which names are not used.

pyproject.toml has the rules that ruff checks; this file checks the others.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests import import_cycles
from tests.syntax import nodes, tree

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = tuple(REPOSITORY / root for root in ("src", "providers", "local_backend"))
MODULES = tuple(sorted(path for root in ROOTS for path in root.rglob("*.py")))

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60

LONGER_MODULES: dict[str, str] = {
    "src/cloudtune/client.py": "the public API, a third of it docstrings",
}
"""Module -> why it may be longer than LONGEST_MODULE lines."""

LONGER_FUNCTIONS: dict[str, tuple[int, str]] = {
    "local_backend/cloudtune_trainer/loop.py:train": (
        120,
        "the training loop reads best flat, from top to bottom",
    ),
}
"""``path:name`` -> the lines it may have, and why."""

SHARED_BY_PROVIDERS = (
    "cloudtune_providers.aws", "cloudtune_providers.openai_dialect", "cloudtune_providers.run_folders",
)  # fmt: skip

EMPTY_NAMES = ("util", "utils", "helper", "helpers", "common", "misc", "manager", "handler")


class Function(NamedTuple):
    """A function and its location."""

    name: str
    lines: int


def _where(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def _functions(path: Path) -> list[Function]:
    found = []
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            found.append(Function(f"{_where(path)}:{node.name}", lines))
    return found


def _imports(path: Path) -> set[str]:
    """Every module that the file imports, however deep in a function the import stands."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_where(path)}:{node.lineno}: imports are absolute"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _under(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_the_three_roots_are_there() -> None:
    assert {path.relative_to(REPOSITORY).parts[0] for path in MODULES} == {"src", "providers", "local_backend"}


def test_no_module_grows_too_long() -> None:
    lengths = {_where(path): path.read_text(encoding="utf-8").count("\n") for path in MODULES}
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE and name not in LONGER_MODULES}
    assert not too_long, f"over {LONGEST_MODULE} lines: split them by what they know"
    grown_out = [name for name in LONGER_MODULES if lengths.get(name, 0) <= LONGEST_MODULE]
    assert not grown_out, "these need no permission any more"


def test_no_function_grows_too_long() -> None:
    lengths = {found.name: found.lines for path in MODULES for found in _functions(path)}
    allowed = {name: lines for name, (lines, _) in LONGER_FUNCTIONS.items()}
    too_long = {name: lines for name, lines in lengths.items() if lines > allowed.get(name, LONGEST_FUNCTION)}
    assert not too_long, f"over {LONGEST_FUNCTION} lines"
    grown_out = [name for name in allowed if lengths.get(name, 0) <= LONGEST_FUNCTION]
    assert not grown_out, "these need no permission any more"


def test_most_functions_are_short() -> None:
    lengths = sorted(found.lines for path in MODULES for found in _functions(path))
    median, ninth = lengths[len(lengths) // 2], lengths[len(lengths) * 9 // 10]
    assert median <= 12
    assert ninth <= 35


def test_names_say_what_a_thing_is() -> None:
    vague = [
        _where(path)
        for path in MODULES
        if path.stem.strip("_") in EMPTY_NAMES or re.match(r"base_(?!models$)", path.stem)
    ]
    vague += [
        f"{_where(path)}:{node.name}"
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Handler", "Util", "Utils", "Helper"))
        if not any(ast.unparse(base).endswith("Handler") for base in node.bases)  # http.server's own word
    ]
    assert not vague, "name the noun: see CONTRIBUTING"


def test_every_module_says_what_it_is_for() -> None:
    trees = {_where(path): tree(path) for path in MODULES}
    assert not [name for name, module in trees.items() if module.body and not ast.get_docstring(module)]


def test_imports_point_one_way() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_imports_form_a_cycle() -> None:
    """Neither at import time nor, with the imports inside functions, between the files of one folder."""
    graphs = import_cycles.graphs_of(import_cycles.modules_under(ROOTS), tree)
    assert not import_cycles.cycles(graphs.at_import)
    assert not import_cycles.cycles(graphs.in_folders)


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    sources = {
        "__init__": "", "first": "import package.second", "second": "from package import third",
        "third": "def load():\n    from package.first import name",
    }  # fmt: skip
    for name, source in sources.items():
        (tmp_path / "package" / f"{name}.py").write_text(source)
    graphs = import_cycles.graphs_of(import_cycles.modules_under([tmp_path]))
    assert not import_cycles.cycles(graphs.at_import)
    assert import_cycles.cycles(graphs.in_folders) == [["package.first", "package.second", "package.third"]]
    (tmp_path / "package" / "third.py").write_text("from package.first import name")
    graphs = import_cycles.graphs_of(import_cycles.modules_under([tmp_path]))
    assert import_cycles.cycles(graphs.at_import) == [["package.first", "package.second", "package.third"]]


def test_the_trainer_imports_nothing_of_the_house() -> None:
    """Its folder is shipped to where nothing else of cloudtune is installed."""
    house = ("cloudtune", "cloudtune_emulator", "cloudtune_local", "cloudtune_providers")
    found = {
        f"{_where(path)} imports {name}"
        for path in MODULES
        if "cloudtune_trainer/" in _where(path) and "cloudtune_trainer/submit/" not in _where(path)
        for name in _imports(path)
        if any(_under(name, package) for package in (*house, "cloudtune_trainer.submit"))
    }
    assert not found


def test_only_the_trainer_names_torch() -> None:
    heavy = ("torch", "transformers", "peft", "accelerate", "safetensors", "trl")
    found = {
        f"{_where(path)} imports {name}"
        for path in MODULES
        if "cloudtune_trainer/" not in _where(path)
        for name in _imports(path)
        if any(_under(name, package) for package in heavy)
    }
    assert not found


def test_providers_do_not_know_one_another() -> None:
    """Each may import its own package and what several vendors share: AWS's session, OpenAI's dialect."""
    found = set()
    for path in MODULES:
        parts = path.relative_to(REPOSITORY).parts
        if parts[0] != "providers" or len(parts) < 4:
            continue
        mine = (f"cloudtune_providers.{parts[2]}", *SHARED_BY_PROVIDERS)
        for name in _imports(path):
            if name.startswith("cloudtune_providers.") and not any(_under(name, package) for package in mine):
                found.add(f"{_where(path)} imports {name}")
    assert not found


def test_readme_names_every_back_end() -> None:
    from cloudtune.registry import BUILT_IN

    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    missing = [
        name for name in BUILT_IN if not re.search(rf"^\| `{name}` \| (?:supported|tested)", readme, re.MULTILINE)
    ]
    assert not missing
    planned = re.findall(r"^\| `(\w+)` \| planned", readme, re.MULTILINE)
    assert not set(planned) & set(BUILT_IN)
