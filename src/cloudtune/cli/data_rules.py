"""``cloudtune data rules``: list the rules that a back end has for rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("rules", without=("backend", "ledger", "profile"))
@click.option("--for", "target", metavar="BACKEND", required=True, help="The back end.")
@click.option("--model", help="Base model, for rules that depend on it.")
@click.option("--method", help="Only the rules for this method: sft, dpo, rft, ...")
def command_(session: Session, target: str, model: str | None, method: str | None) -> None:
    """List every rule that `cloudtune data check --for BACKEND` applies, with its problem code and its source."""
    import msgspec

    from cloudtune.data.rule_list import list_rules

    rules = list_rules(target, model, method)
    session.result({"rules": msgspec.to_builtins(rules)})
    if session.json:
        return
    for rule in rules:
        only = f" ({rule.method})" if rule.method else ""
        kind = "" if rule.severity == "error" else f" [{rule.severity}]"
        session.put(f"{rule.code}{only}{kind}: {rule.rule}")
        if rule.example:
            session.put(f"    refused: {rule.example}" if not kind else f"    reported: {rule.example}")
        if rule.source:
            session.put(f"    source: {rule.source}" + (f", seen {rule.seen}" if rule.seen else ""))
