"""``check`` reports on data files without writing; ``convert`` also writes them in a format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.checks.costs import Cost
from cloudtune.data.checks.limits import hold
from cloudtune.data.checks.preparing import go_through, sources, whole
from cloudtune.data.checks.targets import find_target
from cloudtune.data.encoding import BOM, Hashed, Shuffled
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.reading import read
from cloudtune.data.records import kind_of
from cloudtune.data.row_rules import DataFacts
from cloudtune.data.scanned import Task
from cloudtune.data.split import shares
from cloudtune.data.transform.shaping import digest
from cloudtune.data.write.formats_table import find_format
from cloudtune.data.write.output_file import temporary_file
from cloudtune.errors import Problem
from cloudtune.methods import DEFAULT_METHOD, method_for, only_items
from cloudtune.spec import Data, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudtune.data.checks.dataset_stats import SideTotal, Survey
    from cloudtune.data.checks.targets import Target
    from cloudtune.data.places import Batch
    from cloudtune.data.records import Record
    from cloudtune.data.write.formats import Format

REPORT_VERSION = 1


class SideReport(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the data."""

    rows: int
    bytes: int
    sha256: str
    longest_chars: int
    mean_bytes: float
    largest_bytes: int
    sizes: list[tuple[int, int]]
    tokens: int | None = None
    token_sizes: list[tuple[int, int]] = []
    largest_tokens: int | None = None


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """The results for data files."""

    schema_version: int = REPORT_VERSION
    ok: bool
    """No errors; there may be warnings."""
    rows: int
    bytes: int
    """Of the canonical records."""
    kinds: dict[str, int]
    fingerprint: str
    problems: list[Problem]
    counts: dict[str, int]
    """How many problems of each code, those that are not listed included."""
    features: dict[str, int] = {}
    """How many rows have tools, images, weights, thoughts, ...: what not every format and model can take."""
    duplicates: int = 0
    conflicts: int = 0
    leaks: int = 0
    labels: dict[str, int] | None = None
    sizes: list[tuple[int, int]] = []
    """Histogram of the records' bytes: (upper bound, how many)."""
    mean_bytes: float = 0.0
    largest_bytes: int = 0
    tokens: int | None = None
    """Tokens of all rows, if counted."""
    token_sizes: list[tuple[int, int]] = []
    largest_tokens: int | None = None
    target: str | None = None
    format: str | None = None
    method: str = DEFAULT_METHOD
    costs: list[Cost] = []
    """The cost of a pass over the training rows, if requested."""
    splits: dict[str, SideReport] = {}
    """``train`` and, if given or held out, ``validation`` and ``test``."""
    out: str | None = None
    beside: list[str] = []
    """Files that were written besides the rows."""
    out_bytes: int | None = None
    out_sha256: str | None = None


def source_data(paths: Source | str | Iterable[str], **more: Any) -> Data:
    """Data whose training rows are those files."""
    train = paths if isinstance(paths, Source | str) else tuple(paths)
    return Data.model_validate({"train": train, **more})


def check(
    data: Data | Source | str | Iterable[str], *, target: str | None = None, model: str | None = None,
    method: str | None = None, private: bool = False, tokenizer: str | None = None, max_tokens: int | None = None,
    near: float | None = None, problems: int = 1000, workers: int | None = None,
    change: Callable[[Batch], Batch] | None = None,
) -> CheckReport:  # fmt: skip
    """Check the data in one pass and report everything; ``target`` is the back end.

    By default the kind of rows determines ``method``. The number of listed problems per severity is limited.
    ``near`` (0 to 1) also finds rows with that similarity to earlier ones: a separate pass, and slower.
    Large files are shared among ``workers`` processes: 0 for none, by the files' size if it is not given.
    """
    data = data if isinstance(data, Data) else source_data(data)
    place = find_target(target, model, method) if target else None
    faults = Faults(problems)

    items = only_items(method)
    limit = max_tokens or (place.max_tokens if place else None)
    counts = tokenizer or (place.tokenizer if place and limit else None)

    def task_for(first: Record | None) -> Task:
        chosen = method or method_of(first)
        form = place.format_for(chosen) if place else None
        return Task(
            chosen, shares(data), target=place.name if place else "", rules_of=place.rules_of if place else None,
            format=form, private=private, tokenizer=counts, max_tokens=limit,
            longer="error" if counts and not tokenizer else "count", row_check=place.row_check if place else None,
            items=items, media=True,
        )  # fmt: skip

    task, survey = go_through(data, task_for, faults, workers=workers, change=change, items=items)
    if near is not None:
        _near_duplicates(data, near, faults, change or (lambda batch: batch), items=items)
    return _report(data, survey, faults, place, task)


def convert(
    data: Data | Source | str | Iterable[str], *, to: str, out: Path, target: str | None = None,
    model: str | None = None, allow_dropped: Iterable[str] = (), method: str | None = None, private: bool = False,
    problems: int = 1000, workers: int | None = None, change: Callable[[Batch], Batch] | None = None,
    shuffle: int | None = None,
) -> CheckReport:  # fmt: skip
    """Check the data and write the training rows in the format ``to``, in one pass; writes nothing if there are errors.

    ``change`` removes or changes rows first; ``shuffle`` is a seed for another order, in bounded memory. Other files of
    the format, such as a template file, are written to the same folder.
    """
    data = data if isinstance(data, Data) else source_data(data)
    form = find_format(to)
    place = find_target(target, model, method) if target else None
    faults = Faults(problems)
    allowed = frozenset(allow_dropped)
    items = only_items(method) or form.kinds == {"item"}

    def task_for(first: Record | None) -> Task:
        return Task(method or method_of(first), shares(data), target=place.name if place else "", format=to,
                    rules_of=place.rules_of if place else None, allow_dropped=allowed, private=private,
                    max_tokens=place.max_tokens if place else None, items=items)  # fmt: skip

    handle, aside = temporary_file(out)
    try:
        with os.fdopen(handle, "wb") as stream:
            head = BOM if form.bom else b""
            file = Hashed(stream, "train", head) if shuffle is None else Shuffled(stream, "train", head, shuffle)
            task, survey = go_through(data, task_for, faults, file.put, workers, change, items=items)
            file.finish()
        report = _report(data, survey, faults, place, task, file)
        if report.ok:
            os.replace(aside, out)
            return msgspec.structs.replace(report, out=str(out), beside=_beside(form, out.parent))
        Path(aside).unlink()
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return report


def _beside(form: Format, folder: Path) -> list[str]:
    """Write the format's other files."""
    for name, content in form.beside:
        (folder / name).write_text(content, encoding="utf-8")
    return [str(folder / name) for name, _ in form.beside]


def _near_duplicates(
    data: Data, threshold: float, faults: Faults, change: Callable[[Batch], Batch], *, items: bool
) -> None:
    """Report rows that nearly repeat an earlier one, in any split. Equal rows are already reported."""
    from cloudtune.data.transform.near import NearDuplicates

    known = NearDuplicates(threshold)
    seen: set[int] = set()
    places: list[str] = []
    for source in sources(data).values():
        for batch in map(change, read(source, Faults(), items=items)):
            new: list[tuple[int, Record]] = []
            for line, record in zip(batch.lines, batch.records, strict=True):
                if (one := digest(record)) not in seen:
                    seen.add(one)
                    new.append((line, record))
            for (line, _), like in zip(new, known.add([record for _, record in new]), strict=True):
                if like is not None:
                    message, fix = f"nearly the same as {places[like]}", "cloudtune data dedupe --near"
                    problem = Problem(code="near_duplicate", severity="warning", message=message, fix=fix)
                    faults.add(batch.locate(problem, line))
                places.append(f"{batch.file}:{line}")


def method_of(first: Record | None) -> str:
    """The method for rows of the first one's kind."""
    return DEFAULT_METHOD if first is None else method_for(kind_of(first))


def _report(
    data: Data, survey: Survey, faults: Faults, place: Target | None, task: Task, file: Hashed | None = None
) -> CheckReport:
    whole(data, survey, task, faults)
    if place is not None:
        sizes = {"train": file.size} if file else {name: side.bytes for name, side in survey.sides.items()}
        hold(place, DataFacts({name: side.rows for name, side in survey.sides.items()}, survey.features), sizes, faults)
    rank = {"error": 0, "warning": 1, "info": 2}
    listed = [problem for severity in rank for problem in faults.listed(severity)]  # type: ignore[arg-type]
    lengths, tokens = survey.sizes, survey.tokens
    counted = task.tokenizer is not None and task.longer == "count"
    return CheckReport(
        ok=not faults.total("error"), rows=survey.rows, bytes=sum(side.bytes for side in survey.sides.values()),
        kinds=dict(sorted(survey.kinds.items())), fingerprint=survey.fingerprint, problems=listed,
        counts={code: count for (_, code), count in sorted(faults.counts.items())}, duplicates=survey.duplicates,
        features=dict(sorted(survey.features.items())), conflicts=survey.conflicts, leaks=survey.leaks,
        labels=dict(survey.labels.most_common()) if survey.labels else None, sizes=lengths.buckets(),
        mean_bytes=round(lengths.mean, 1), largest_bytes=lengths.largest,
        tokens=tokens.total if counted else None, token_sizes=tokens.buckets(),
        largest_tokens=tokens.largest if counted else None,
        splits={name: _side(side, task) for name, side in survey.sides.items()},
        target=place.name if place else None, format=task.format, method=task.method,
        out_bytes=file.size if file else None, out_sha256=file.sha256(survey) if file else None,
    )  # fmt: skip


def _side(side: SideTotal, task: Task) -> SideReport:
    counted = task.tokenizer is not None and task.longer == "count"
    return SideReport(
        rows=side.rows, bytes=side.bytes, sha256=side.hash.hexdigest(), longest_chars=side.longest,
        mean_bytes=round(side.sizes.mean, 1), largest_bytes=side.sizes.largest, sizes=side.sizes.buckets(),
        tokens=side.tokens.total if counted else None, token_sizes=side.tokens.buckets(),
        largest_tokens=side.tokens.largest if counted else None,
    )  # fmt: skip
