"""Every rule that ``data check --for`` applies to the rows of a back end, as one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cloudtune.data.checks.record_checks import GENERAL
from cloudtune.data.checks.targets import find_target, row_rules
from cloudtune.data.media import images, recordings
from cloudtune.data.row_rules import RowRule
from cloudtune.data.write.dropped_features import ALL, FEATURES
from cloudtune.data.write.formats_table import find_format
from cloudtune.errors import Severity
from cloudtune.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.checks.targets import Target
    from cloudtune.data.row_rules import VendorRule


class ListedRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule."""

    code: str
    """The code of the problems that break it."""
    rule: str
    severity: Severity = "error"
    applies_to: str
    """``row`` or ``dataset``."""
    method: str | None = None
    """The only method that it applies to; None = all."""
    source: str | None = None
    """Where it is documented: a URL, or a citation. None = cloudtune's own rule."""
    seen: str | None = None
    """The date on which the source was read."""
    example: str | None = None
    """What breaks it."""
    fix: str | None = None


def list_rules(backend: str, model: str | None = None, method: str | None = None) -> list[ListedRule]:
    """The rules for that back end, base model and method. Raises DataError, BackendNotInstalled."""
    target = find_target(backend, model, method)
    methods = [method] if method else list(target.formats)
    media = {METHODS[name].media for name in methods if name in METHODS}
    general = GENERAL | (images.RULES if "image" in media else {}) | (recordings.RULES if "audio" in media else {})
    found = [ListedRule(code=code, rule=rule, applies_to="row") for code, rule in general.items()]
    found += _limits(target)
    for name in methods:
        form = find_format(target.format_for(name))
        found += [_listed(rule, name) for rule in form.rules]
        if form.kinds and (lost := sorted(ALL - form.carries - {"unanswered"})):
            features = ", ".join(FEATURES[feature] for feature in lost)
            found.append(
                ListedRule(
                    code="loss",
                    rule=f"Rows have none of these, which {form.name} cannot hold: {features}.",
                    applies_to="row",
                    method=name,
                    fix="remove them, or allow their loss with --allow-dropped",
                )
            )
    found += [_listed(rule, None) for rule in row_rules(target.rules_of)]
    return found


def _listed(rule: VendorRule, method: str | None) -> ListedRule:
    return ListedRule(
        code=rule.code, rule=rule.text, severity=rule.severity, method=method, source=rule.source.url,
        applies_to="row" if isinstance(rule, RowRule) else "dataset", seen=rule.source.seen, example=rule.example,
        fix=rule.fix,
    )  # fmt: skip


def _limits(target: Target) -> Iterator[ListedRule]:
    texts = {
        "min_rows": ("too_few_rows", "dataset", f"There are at least {target.min_rows:,} training rows."),
        "max_rows": ("too_many_rows", "dataset", f"There are at most {target.max_rows or 0:,} training rows."),
        "max_bytes": ("too_large", "dataset", f"A file has at most {target.max_bytes or 0:,} bytes."),
        "max_tokens": ("too_long", "row", f"A row has at most {target.max_tokens or 0:,} tokens."),
    }
    for field, (code, applies_to, text) in texts.items():
        if getattr(target, field) not in (None, 1):
            yield ListedRule(code=code, rule=text, applies_to=applies_to, source=target.cited.get(field))
