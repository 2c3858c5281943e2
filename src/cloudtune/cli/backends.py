"""``cloudtune backends``: list back ends and their capabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from cloudtune.backend import Capabilities
    from cloudtune.cli.session import Session


@command("backends", without=("backend",))
@click.argument("name", required=False)
def backends(session: Session, name: str | None) -> None:
    """List the back ends. With NAME, show what that back end supports, and why it lacks the rest."""
    from cloudtune.registry import backend_names

    found = [inspect(session, one) for one in ([name] if name else backend_names())]
    session.result({"backends": found})
    if session.json:
        return
    if name is None:
        _list(found)
        session.say("run `cloudtune backends NAME` to see what a back end supports")
    else:
        _one(session, found[0])


def inspect(session: Session, name: str) -> dict[str, Any]:
    """Describe one back end. ``problem`` is the reason why it cannot be used now."""
    from cloudtune.errors import CloudtuneError
    from cloudtune.registry import describe

    info = describe(name)
    found: dict[str, Any] = {
        "name": info.name, "summary": info.summary, "origin": info.origin, "extra": info.extra,
        "missing": list(info.missing), "usable": False, "problem": None, "hint": None,
    }  # fmt: skip
    if info.missing:
        line = install_command(info.extra) if info.extra else f"pip install {' '.join(info.missing)}"
        return found | {"problem": f"needs {', '.join(info.missing)}", "hint": f"run: {line}"}
    try:
        capabilities = session.client.backend(name).capabilities
    except CloudtuneError as error:
        return found | {"problem": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - a third party's module may raise anything
        return found | {
            "problem": f"{type(error).__name__}: {error}",
            "hint": f"the back end is provided by {info.origin}",
        }
    return found | {"usable": True} | _capabilities(capabilities)


def _capabilities(capabilities: Capabilities) -> dict[str, Any]:
    from cloudtune.backend import VERBS
    from cloudtune.spec import spec_features

    features = (*spec_features(), *VERBS)
    extra = sorted(capabilities.supports - set(features))
    return {
        "supports": [*(one for one in features if capabilities.can(one)), *extra],
        "reasons": {one: capabilities.why_not(one) for one in features if not capabilities.can(one)},
        "translated": dict(capabilities.translated),
    }


def _list(found: list[dict[str, Any]]) -> None:
    from cloudtune.cli.render import table

    rows = [
        [one["name"], "ready" if one["usable"] else f"{one['problem']} ({one['hint']})" if one["hint"]
         else one["problem"], one["origin"], one["summary"]]
        for one in found
    ]  # fmt: skip
    table(["NAME", "STATUS", "ORIGIN", "DESCRIPTION"], rows)


def _one(session: Session, found: dict[str, Any]) -> None:
    from cloudtune.cli.render import table

    session.put(f"{found['name']}: {found['summary']}" if found["summary"] else found["name"])
    if not found["usable"]:
        session.put(f"not usable: {found['problem']}" + (f"\n{found['hint']}" if found["hint"] else ""))
        return
    session.put("\nSupported")
    table(["FEATURE", "NATIVE NAME"], [[one, found["translated"].get(one, "")] for one in found["supports"]])
    if found["reasons"]:
        session.put("\nNot supported")
        table(["FEATURE", "REASON"], [list(pair) for pair in found["reasons"].items()])
