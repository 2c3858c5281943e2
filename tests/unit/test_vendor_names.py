"""The core's code names no vendor: facts about a vendor are in its provider's folder."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.syntax import nodes

from cloudtune.registry import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Sequence

CORE = Path(__file__).resolve().parents[2] / "src" / "cloudtune"
NAMES = (
    *(name for name in BUILT_IN if name not in ("local", "ray")), "amazon", "anthropic", "azure", "boto", "claude",
    "cohere", "converse", "foundry", "gemini", "jumpstart", "llama", "microsoft", "mistral", "o200k", "qwen", "titan",
)  # fmt: skip
SHORT = ("aws", "gpt", "nova", "ray", "s3")
"""These count only as a word or as a part of a name that underscores divide."""
ALLOWED: dict[str, tuple[str, str]] = {
    "registry.py": ("*", "the table of this distribution's own back ends"),
    "plugins.py": ("*", "the table of what its providers add to the data commands"),
    "secret_shapes.py": ("aws bedrock", "secrets of any vendor are masked, whatever back end is used"),
    "redaction/redactor.py": ("aws", "secrets of any vendor are masked, whatever back end is used"),
    "cli/data_check.py": ("o200k", "an example in a help text"),
    "cli/data_profile.py": ("o200k", "an example in a help text"),
    "cli/data_stats.py": ("o200k", "an example in a help text"),
    "cli/data_convert.py": ("bedrock claude converse jumpstart openai sagemaker", "examples in a help text"),
    "cli/emulate.py": ("openai", "help of the command that serves the vendors' APIs"),
    "cli/importing.py": ("bedrock", "an example in a help text"),
    "cli/init.py": ("openai gpt", "an example in a file that the command writes"),
    "cli/options.py": ("openai", "an example in a help text"),
    "data/read/dialects.py": ("gpt", "speakers in ShareGPT's conversations, which no vendor owns"),
    "data/read/kinds_chat.py": ("gpt", "speakers in ShareGPT's conversations, which no vendor owns"),
    "ledger/sqlite.py": ("ssh", "the name of a file system"),
    "testing/contract/plan_clauses.py": ("s3", "the address of rows that no plan may read"),
    "data/write/formats_table.py": ("gpt", "a speaker in ShareGPT's conversations, which no vendor owns"),
}
"""File -> the names that it may hold, and the reason."""

_FOUND = re.compile(rf"{'|'.join(NAMES)}|(?<![a-z0-9])(?:{'|'.join(SHORT)})(?![a-z0-9])")


def named_in(syntax: Sequence[ast.AST]) -> set[str]:
    """The vendors that identifiers and strings name. Comments and docstrings may cite and give examples."""
    prose = {id(node.value) for node in syntax if isinstance(node, ast.Expr)}
    found: set[str] = set()
    for node in syntax:
        texts = [getattr(node, field, None) for field in ("id", "attr", "name", "arg", "asname", "module")]
        if isinstance(node, ast.Constant) and id(node) not in prose:
            texts.append(node.value if isinstance(node.value, str) else str(node.value))
        for text in texts:
            found |= set(_FOUND.findall(text.lower().replace("_", " "))) if isinstance(text, str) else set()
    return found


@cache
def found() -> dict[str, set[str]]:
    """File -> the names in it."""
    each = {path.relative_to(CORE).as_posix(): named_in(nodes(path)) for path in CORE.rglob("*.py")}
    return {where: names for where, names in each.items() if names}


def allowed(where: str) -> set[str]:
    names, _ = ALLOWED.get(where, ("", ""))
    return found()[where] if names == "*" else set(names.split())


def test_core_names_no_vendor() -> None:
    others = {where: more for where, names in found().items() if (more := names - allowed(where))}
    assert not others, "move it to the provider's folder; see CONTRIBUTING.md, Adding formats and row rules"


def test_every_exception_is_still_used() -> None:
    idle = {where: names for where in ALLOWED if (names := allowed(where) - found().get(where, set()))}
    assert not idle
    assert set(ALLOWED) <= set(found())


def test_core_holds_no_data_files() -> None:
    assert not [path for path in CORE.rglob("*") if path.suffix in {".json", ".yaml", ".csv", ".toml"}]


@pytest.mark.parametrize(
    "source",
    [
        "from package import OpenAITokens", "TARGETS = {'bedrock-llama': 1}", "def to_claude(row): ...",
        "if model.startswith('gpt-4o'): ...", "HEAD = b'{\"schemaVersion\":\"bedrock-conversation-2024\"'",
        "scheme = 's3'", "x.azure_openai", "call(aws=1)", "NOVA_FORBIDDEN = ()",
    ],
)  # fmt: skip
def test_a_planted_name_is_found(source: str) -> None:
    assert named_in([*ast.walk(ast.parse(source))])


@pytest.mark.parametrize(
    "source", ['"""As OpenAI does."""', "x = 1  # Bedrock", "def innovate(): ...", "laws = 'open'", "S311 = 'seconds3'"]
)
def test_other_words_pass(source: str) -> None:
    assert not named_in([*ast.walk(ast.parse(source))])
