"""What a job will cost: exactly where its tokens can be counted, else between two bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloudtune.plan import CostEstimate
from cloudtune_providers.openai_dialect.rules import base_of

if TYPE_CHECKING:
    from cloudtune.catalog import Catalog
    from cloudtune.plan import DataReport
    from cloudtune.spec import JobSpec

READ_AT_MOST = 2_000_000
"""Maximum bytes of rows that are counted, about one second of work. For larger data only bounds are shown."""
_UNITS = {"1M tokens": 1e6, "1K tokens": 1e3}


class Tokens(NamedTuple):
    """How many tokens the training rows have."""

    least: int
    most: int
    by: str
    """What counted them; empty where they are only bounds."""

    def __str__(self) -> str:
        if self.by:
            return f"{self.least:,} tokens, counted with {self.by},"
        return f"between {self.least:,} and {self.most:,} tokens" if self.least else f"at most {self.most:,} tokens"


def estimate(spec: JobSpec, data: DataReport, catalog: Catalog, backend: str, tier: str = "") -> CostEstimate | None:
    """The cost of training by the catalog's price, or None where it has none for that model, method and tier."""
    model = base_of(spec.model_for(backend) or "")
    price = catalog.price("training", model, spec.method.name, tier)
    if price is None:
        return None
    cited = "; ".join(part for part in (catalog.cite(price.source), price.note) if part)
    as_of = catalog.sources[price.source].seen.isoformat()
    if (unit := _UNITS.get(price.per)) is None:
        basis = f"{price.usd:g} USD per {price.per} of training; the duration is unknown ({cited})"
        return CostEstimate(usd=None, basis=basis, prices_as_of=as_of)
    asked = spec.overrides.get(backend, {}).get("n_epochs") or spec.hyperparameters.epochs
    epochs = 1.0 if asked is None or asked == "auto" else float(asked)
    is_known = asked not in (None, "auto")
    tokens = count(spec, model, data.splits["train"].bytes)
    least, most = (round(number * epochs * price.usd / unit, 4) for number in (tokens.least, tokens.most))
    times = f"in {epochs:g} epochs" if is_known else "per epoch, whose number the service chooses,"
    return CostEstimate(
        usd=most if tokens.by and is_known else None, at_least_usd=least or None, at_most_usd=most,
        basis=f"{tokens} {times} at {price.usd:g} USD per {price.per}: {cited}", prices_as_of=as_of,
    )  # fmt: skip


def count(spec: JobSpec, model: str, size: int) -> Tokens:
    """The tokens of the training rows, which have ``size`` bytes: no token has less than one."""
    from cloudtune.data.checks.costs import bounds
    from cloudtune.data.checks.openai_tokens import OpenAITokens, encoding_of
    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.reading import read
    from cloudtune.data.records import canonical
    from cloudtune.data.split import shares

    if spec.data.mix:
        return Tokens(0, size, "")
    encoding, keep = encoding_of(model), shares(spec.data)
    counter = OpenAITokens(encoding) if encoding else None
    least = most = seen = 0
    for batch in read(spec.data.train, Faults()):
        written = [(record, canonical(record)) for record in batch.records]
        learnt = [(record, line) for record, line in written if keep.side(line) == "train"]
        pairs = [bounds(record) for record, _ in learnt]
        if counter is not None:
            pairs = [(number, number) for number in counter.count([record for record, _ in learnt])]
        least += sum(pair[0] for pair in pairs)
        most += sum(pair[1] for pair in pairs)
        seen += sum(len(line) + 1 for _, line in learnt)
        if seen > READ_AT_MOST:
            return Tokens(least, most + max(0, size - seen), "")
    return Tokens(least, most, encoding or "")
