"""Writes the pages under ``reference/`` of the documentation from the code, each time that MkDocs builds the site.

They are the spec, the settings, the commands, the errors, the exit codes, the problem codes and the data rules.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune import errors
from cloudtune.cli.main import EPILOG, cli
from cloudtune.cli.schema import job_schema
from cloudtune.data.rule_list import ListedRule, list_rules
from cloudtune.methods import METHODS
from cloudtune.registry import BUILT_IN, backend_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("src/cloudtune", "providers", "local_backend/cloudtune_local", "local_backend/cloudtune_trainer")
WIDTH = 100


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages. MkDocs calls this."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}", content=text))
    return files


def pages() -> dict[str, str]:
    """File name -> content."""
    return {
        "spec.md": spec_page(), "settings.md": settings_page(), "cli.md": cli_page(), "errors.md": errors_page(),
        "exit_codes.md": exit_codes_page(), "problem_codes.md": problem_codes_page(), "data_rules.md": rules_page(),
    }  # fmt: skip


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [
        head,
        ["---"] * len(head),
        *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# -- spec and settings -------------------------------------------------------------------------------------------------


def spec_page() -> str:
    """Every field of a spec."""
    schema = job_schema()
    methods = table(
        ("method", "task", "rows"),
        ((f"`{name}`", method.task.replace("_", " "), ", ".join(f"`{row}`" for row in sorted(method.kinds)))
         for name, method in METHODS.items()),
    )  # fmt: skip
    parts = [
        "# Job spec\n\nA spec is a YAML, JSON or TOML file. Fields that are left out use the back end's defaults.",
        "The plan shows them. `cloudtune schema` prints the JSON Schema for editors.\n",
        *_object("Spec", schema, schema.get("$defs", {}), 2),
        f"## Methods\n\n{methods}",
    ]
    for name in sorted(BUILT_IN):
        own = backend_class(name).Overrides.model_json_schema()
        parts += _object(f"overrides.{name}", own, own.get("$defs", {}), 2)
    return "\n".join(parts)


def settings_page() -> str:
    """The settings of every back end."""
    parts = [
        "# Settings of back ends\n\nSet them under `[backends.NAME]` in `cloudtune.toml`, or with environment",
        "variables such as `CLOUDTUNE_BACKENDS__OPENAI__TIMEOUT`. See [Configuration](../howto/configuration.md).\n",
    ]
    for name in sorted(BUILT_IN):
        own = backend_class(name).Options.model_json_schema()
        parts += _object(name, own, own.get("$defs", {}), 2)
    return "\n".join(parts)


def _object(title: str, schema: Mapping[str, Any], named: Mapping[str, Any], level: int) -> Iterator[str]:
    """A table of the fields, followed by those of the parts that they name."""
    yield f"{'#' * level} {title}\n"
    if text := schema.get("description"):
        yield f"{_flat(text)}\n"
    required = schema.get("required", [])
    rows, parts = [], list[str]()
    for name, field in schema.get("properties", {}).items():
        kind = _kind(field, named, parts)
        default = "required" if name in required else _default(field)
        rows.append((f"`{name}`", kind, default, _flat(field.get("description", ""))))
    yield table(("field", "value", "default", "meaning"), rows) if rows else "There are none.\n"
    if level == 2:
        seen = set[str]()
        while parts:
            part = parts.pop(0)
            if part in seen:
                continue
            seen.add(part)
            (head, *_) = lines = list(_object(part, named[part], named, 3))
            assert head
            yield from lines
            for field in named[part].get("properties", {}).values():
                _kind(field, named, parts)


def _kind(field: Mapping[str, Any], named: Mapping[str, Any], parts: list[str]) -> str:
    """The values that a field takes. Adds the objects that it names to ``parts``."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        found = named[name]
        if "properties" in found:
            parts.append(name)
            return f"[{name}](#{name.lower()})"
        return _kind(found, named, parts)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    for key in ("anyOf", "oneOf"):
        if key in field:
            kinds = [_kind(one, named, parts) for one in field[key] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}), named, parts)}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"mapping to {_kind(values, named, parts)}" if isinstance(values, dict) else "mapping"
    return {"string": "text", "boolean": "true or false"}.get(
        field.get("type", "any"), field.get("type", "any")
    ) + _range(field)


def _range(field: Mapping[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    found = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field and abs(field[key]) < 2**32]
    return f" {', '.join(found)}" if found else ""


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    return (
        ""
        if value in (None, []) or isinstance(value, dict)
        else f"`{str(value).lower() if isinstance(value, bool) else value}`"
    )


def _flat(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


# -- commands and errors -----------------------------------------------------------------------------------------------


def cli_page() -> str:
    """The help of every command."""
    parts = ["# Command line\n\nEvery command accepts `--json`. See [exit codes](exit_codes.md).\n"]
    for name, command in _commands(cli, "cloudtune"):
        with click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH) as context:
            text = command.get_help(context).rstrip()
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        with click.Context(command, info_name=name) as context:
            found = [(child, command.get_command(context, child)) for child in command.list_commands(context)]
        for child, one in found:
            assert one is not None
            yield from _commands(one, f"{name} {child}")


def errors_page() -> str:
    """The tree of errors, and each class with its exit code."""
    tree = re.search(r"::\n\n(.*?)\n\nTo add", errors.__doc__ or "", re.DOTALL)
    assert tree is not None
    classes = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.CloudtuneError) and one.__module__ == errors.__name__
    ]
    rows = ((f"`{one.__name__}`", str(one.exit_code), _flat(one.__doc__ or "")) for one in classes)
    drawn = "\n".join(line.removeprefix("    ") for line in tree[1].splitlines())
    return (
        "# Errors\n\nAll errors are subclasses of `cloudtune.CloudtuneError`. `error.hint` is the recommended action. "
        "`InputError.problems` has every problem with its [code](problem_codes.md).\n\n"
        f"```text\n{drawn}\n```\n\n{table(('error', 'exit code', 'meaning'), rows)}"
    )


def exit_codes_page() -> str:
    """The exit codes of the command line."""
    codes = re.findall(r"^  (\d+) +(.+)$", EPILOG, re.MULTILINE)
    return f"# Exit codes\n\nThey are the same for every command and back end.\n\n{table(('code', 'meaning'), codes)}"


# -- problems ----------------------------------------------------------------------------------------------------------


def problem_codes_page() -> str:
    """Every code of a problem, with its messages and remedies."""
    found: dict[str, list[tuple[str, str]]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for code, message, fix in _problems(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(code, []).append((message, fix))
    rows = []
    for code, texts in sorted(found.items()):
        known = dict.fromkeys((message, fix) for message, fix in texts if message or fix)
        messages = list(dict.fromkeys(message for message, _ in known if message))[:4]
        fixes = list(dict.fromkeys(fix for _, fix in known if fix))[:3]
        rows.append((f"`{code}`", "; ".join(messages) or "see the message", "; ".join(fixes) or "see the message"))
    return (
        "# Problem codes\n\nEach problem has a stable code: in brackets in the output of `cloudtune data check`, "
        "and as `code` with `--json`. `…` marks the values of your case. The rules of each vendor are in "
        f"[Data rules](data_rules.md).\n\n{table(('code', 'message', 'remedy'), rows)}"
    )


def _problems(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        texts = _assigned(scope)
        for node in ast.walk(scope):
            if isinstance(node, ast.Call) and (found := _problem(node, texts)):
                yield found


def _problem(node: ast.Call, texts: Mapping[str, str]) -> tuple[str, str, str] | None:
    called = ast.unparse(node.func).rpartition(".")[2]
    given = {word.arg: word.value for word in node.keywords if word.arg}
    if called == "TrainingProblem":
        given |= dict(zip(("code", "message", "fix"), node.args, strict=False))
    elif called in ("error", "warn", "_fault", "fault") and len(node.args) >= 2:
        given |= dict(zip(("code", "message") if called != "_fault" else ("code", "field", "message", "fix"), node.args,
                          strict=False))  # fmt: skip
    elif called != "Problem":
        return None
    code = given.get("code")
    if not (isinstance(code, ast.Constant) and isinstance(code.value, str) and re.fullmatch("[a-z_]+", code.value)):
        return None
    return code.value, _text(given.get("message"), texts), _text(given.get("fix") or given.get("hint"), texts)


def _assigned(scope: ast.AST) -> dict[str, str]:
    """The texts that are assigned to names in a function."""
    assigned = [
        node for node in ast.walk(scope) if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    return {node.targets[0].id: text for node in assigned if (text := _text(node.value, {}))}  # type: ignore[attr-defined]


def _text(node: ast.expr | None, texts: Mapping[str, str]) -> str:
    """The text of a literal, with … for what is filled in."""
    match node:
        case ast.Constant(value=str(value)):
            return _escaped(value)
        case ast.JoinedStr(values=values):
            return re.sub(r"(… ?)+", "… ", "".join(_text(one, {}) or "…" for one in values)).strip()
        case ast.Name(id=name):
            return texts.get(name, "")
        case ast.IfExp(body=body, orelse=other):
            return _text(body, texts) or _text(other, texts)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return (_text(left, texts) or "…") + (_text(right, texts) or "…")
    return ""


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_<>\[\]{}])", r"\\\1", text)


def rules_page() -> str:
    """The rules of every back end for rows."""
    shared = [rule for rule in list_rules("local") if rule.source is None and rule.code != "loss"]
    parts = [
        "# Data rules\n\nWhat a row must satisfy, with each rule's problem code. `cloudtune data check --for BACKEND`",
        "applies them, and `cloudtune data rules --for BACKEND --model MODEL` lists those of one model.\n",
        "## For every back end\n",
        table(("code", "rule"), ((f"`{rule.code}`", _escaped(rule.rule)) for rule in shared)),
    ]
    known = {(rule.code, rule.rule) for rule in shared}
    for name in sorted(BUILT_IN):
        own = [rule for rule in list_rules(name) if (rule.code, rule.rule) not in known]
        rows = (
            (f"`{rule.code}`" + ("" if rule.severity == "error" else f" ({rule.severity})"), rule.method or "all",
             _escaped(rule.rule), _source(rule))
            for rule in own
        )  # fmt: skip
        parts += [f"## {name}\n", table(("code", "method", "rule", "source, seen"), rows) if own else "No others.\n"]
    return "\n".join(parts)


def _source(rule: ListedRule) -> str:
    source = rule.source or ""
    return f"[{rule.seen or 'source'}]({source})" if source.startswith("http") else _escaped(source)
