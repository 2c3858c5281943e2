"""Print the import cycles of the source folders: ``python tests/import_cycles.py``.

There are two kinds. A cycle at import time makes the order of imports matter. A cycle between files of one folder that
also counts imports inside functions shows files that cannot be read one after the other. Imports under
``TYPE_CHECKING`` do not count. The exit status is 1 if there is a cycle.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[1]
ROOTS = tuple(REPOSITORY / root for root in ("src", "providers", "local_backend"))
Graph = dict[str, set[str]]


class Graphs(NamedTuple):
    """Module -> the modules that it imports."""

    at_import: Graph
    in_folders: Graph
    """Function-level imports included, between files of the same folder only."""


def modules_under(roots: Iterable[Path]) -> dict[str, Path]:
    """Dotted name -> file, for every module below these folders."""
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def graphs_of(modules: Mapping[str, Path], tree: Callable[[Path], ast.Module] = _parsed) -> Graphs:
    """Read every file once. ``tree`` may keep the trees that it has parsed."""
    at_import: Graph = {name: set() for name in modules}
    in_folders: Graph = {name: set() for name in modules}
    for name, path in modules.items():
        for imported, is_at_import in _imports(tree(path), modules):
            if imported == name:
                continue
            if is_at_import:
                at_import[name] |= {
                    one for one in (imported, *_packages(imported)) if not f"{name}.".startswith(f"{one}.")
                }
            if modules[imported].parent == path.parent:
                in_folders[name].add(imported)
    return Graphs(at_import, in_folders)


def _packages(name: str) -> Iterator[str]:
    """The packages whose ``__init__`` runs before the module does."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _imports(node: ast.AST, modules: Mapping[str, Path], is_at_import: bool = True) -> Iterator[tuple[str, bool]]:
    """Every imported module of ours, and whether the import runs when the file is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, is_at_import) for alias in child.names if alias.name in modules)
        elif isinstance(child, ast.ImportFrom) and child.module:
            names = (f"{child.module}.{alias.name}" for alias in child.names)
            found = {name if name in modules else child.module for name in names}
            yield from ((name, is_at_import) for name in found if name in modules)
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, modules, is_at_import and not is_function)


def cycles(graph: Graph) -> list[list[str]]:
    """Groups of modules in which each one reaches every other one, sorted."""
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {tuple(sorted(other for other in found if name in reached[other])) for name, found in reached.items()}
    return sorted(list(group) for group in groups if group)


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def main() -> int:
    """Print both kinds."""
    graphs = graphs_of(modules_under(ROOTS))
    first, second = cycles(graphs.at_import), cycles(graphs.in_folders)
    for title, found in (
        ("at import time", first),
        ("between files of one folder, function-level imports included", second),
    ):
        print(f"Cycles {title}: {len(found)}")
        for group in found:
            print(f"  {len(group)} files: {', '.join(group)}")
    return 1 if first or second else 0


if __name__ == "__main__":
    sys.exit(main())
