"""``prepare`` counts, checks, splits and fingerprints the data in one pass."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from cloudtune.data.checks.dataset_stats import Survey
from cloudtune.data.checks.ipc import Request
from cloudtune.data.checks.limits import hold
from cloudtune.data.checks.scanning import Scanner
from cloudtune.data.checks.token_counts import SplitTokens
from cloudtune.data.checks.worker_pool import Pool, workers_for
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import PART_BYTES, Block, keep_memory
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.reading import chunks_of, read
from cloudtune.data.read.remote import is_remote
from cloudtune.data.row_rules import DataFacts
from cloudtune.data.scanned import MAX_CLASSES, Task
from cloudtune.data.split import shares
from cloudtune.data.transform.mixing import Mixture, mix_sources
from cloudtune.data.write.dropped_features import FEATURES
from cloudtune.errors import Problem
from cloudtune.methods import DEFAULT_METHOD, METHODS, LabelProblem, only_items
from cloudtune.plan import DataReport, SplitInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from cloudtune.data.checks.targets import Target
    from cloudtune.data.places import Batch
    from cloudtune.data.read.tables import Table
    from cloudtune.data.records import Record
    from cloudtune.data.scanned import Scanned
    from cloudtune.plan import RowLimit
    from cloudtune.spec import Data, Source

FEW_ROWS = 100
_LABELS_SHOWN = 10
SPLITS = ("train", "validation", "test")
COUNTED_BYTES = 1 << 20
"""Bytes that are joined for counting tokens."""


def sources(data: Data) -> dict[str, Source]:
    """The sources in the spec, by the split of their rows (or the split from which they are taken).

    Sources that are mixed into the training rows come first, as ``mix[0]`` and so on.
    """
    named = {**mix_sources(data), "train": data.train, "validation": data.validation, "test": data.test}
    return {split: source for split, source in named.items() if source is not None and not isinstance(source, float)}


def prepare(
    data: Data, *, method: str = DEFAULT_METHOD, problem: LabelProblem | None = None, limit: RowLimit | None = None,
    target: Target | None = None,
) -> DataReport:  # fmt: skip
    """Read, check, split and fingerprint the data in one streaming pass. Raises DataError with all problems.

    ``problem`` is what the labels of texts are, for a method that learns them.
    With a ``limit``, the model's own tokenizer finds rows over it, which are reported with their lines. With a
    ``target`` the rows are checked against its rules: the format for the method, reserved words, numbers and sizes.
    Their tokens are counted with its tokenizer if that is installed and there are few rows, and bounded otherwise.
    """
    faults = Faults()
    task, sizes = _task(data, method, problem, limit, target), Counter[str]()
    tokens = {split: SplitTokens(target.tokenizer if target is not None else None) for split in SPLITS}

    def measure(scanned: Scanned, _: Survey) -> None:
        for name, side in scanned.sides.items():
            tokens[name].add(side.canonical, side.rows)
            sizes[name] += len(side.canonical if side.written is None else side.written)

    _, survey = go_through(data, task, faults, measure, items=task.items)
    whole(data, survey, task, faults)
    if target is not None:
        hold(
            target, DataFacts({name: side.rows for name, side in survey.sides.items()}, survey.features), sizes, faults
        )
    faults.raise_errors()
    infos = {
        split: SplitInfo(
            rows=side.rows, bytes=side.bytes, sha256=side.hash.hexdigest(), kind="/".join(sorted(survey.kinds)),
            longest_chars=side.longest, tokens=tokens[split].total(survey.kinds, survey.features),
        )
        for split, side in survey.sides.items()
    }  # fmt: skip
    return DataReport(
        splits=infos,
        fingerprint=survey.fingerprint,
        problems=(*faults.listed("warning"), *faults.listed("info"), *_features(survey)),
    )


def _task(data: Data, method: str, problem: LabelProblem | None, limit: RowLimit | None, target: Target | None) -> Task:
    task = Task(
        method=method, problem=problem, items=only_items(method), shares=shares(data), media=True,
        allow_dropped=frozenset(data.allow_dropped or ()),
    )  # fmt: skip
    if target is not None:
        form = target.formats.get(method)
        task = msgspec.structs.replace(
            task, target=target.name, rules_of=target.rules_of, format=form, max_tokens=target.max_tokens,
            row_check=target.row_check,
        )  # fmt: skip
        if target.tokenizer is not None and target.max_tokens is not None:
            task = msgspec.structs.replace(task, tokenizer=target.tokenizer, longer="error")
    if limit is not None:
        task = msgspec.structs.replace(
            task, tokenizer=limit.tokenizer, max_tokens=limit.tokens, longer="warning" if limit.cut else "error"
        )
    return task


def _features(survey: Survey) -> list[Problem]:
    """Notes about features that not every back end supports: ``code`` is ``feature`` and ``field`` names it."""
    return [
        Problem(code="feature", severity="info", field=name, message=f"{count:,} rows have {FEATURES[name]}")
        for name, count in sorted(survey.features.items())
    ]


def go_through(
    data: Data,
    task: Task | Callable[[Record | None], Task],
    faults: Faults,
    out: Callable[[Scanned, Survey], object] | None = None,
    workers: int | None = None,
    change: Callable[[Batch], Batch] | None = None,
    *,
    items: bool = False,
) -> tuple[Task, Survey]:
    """Every batch of every source once: changed, scanned, written if requested, and added to the statistics.

    The first record can determine the task. ``items``: conversations are tasks for a grader. By default the files' size
    determines ``workers``.
    """
    named = sources(data)
    remote = any(is_remote(path) for source in named.values() for path in source.paths)
    if change is not None or remote or any(source.template for source in named.values()):
        workers = 0  # only unchanged blocks of files are sent to other processes
    workers = workers_for(named.values()) if workers is None else workers
    keep_memory()
    survey = Survey(faults, [split for split in SPLITS if split == "train" or getattr(data, split) is not None])
    mixture = Mixture(data) if data.mix else None
    try:
        chosen, stream = (
            _shared(named, task, faults, workers, items=items) if workers else
            _here(named, task, faults, change, items=items)
        )  # fmt: skip
        with closing(stream):
            for one in stream:
                scanned = mixture.through(one) if mixture else one
                if out is not None:
                    out(scanned, survey)
                survey.add(scanned)
        survey.finish()
        if mixture:
            mixture.report(faults)
    finally:
        survey.close()
        if mixture:
            mixture.close()
    return chosen, survey


def _here(
    named: dict[str, Source], task: Task | Callable[[Record | None], Task], faults: Faults,
    change: Callable[[Batch], Batch] | None, *, items: bool,
) -> tuple[Task, Generator[Scanned]]:  # fmt: skip
    """The task, and every batch scanned in this process."""

    def decoded(rows: FileRows, chunk: Block | Table) -> Batch | None:
        batch = rows.of(chunk)
        return change(batch) if change is not None and batch is not None else batch

    chunks = ((origin, *found) for origin, source in named.items() for found in chunks_of(source, faults, items=items))
    if change is not None:
        chunks = ((origin, rows, part) for origin, rows, chunk in chunks for part in _small(chunk))
    batches = ((origin, rows, chunk, decoded(rows, chunk)) for origin, rows, chunk in chunks)
    filled = ((origin, rows, chunk, batch) for origin, rows, chunk, batch in batches if batch and batch.records)
    first = next(filled, None)
    chosen = task if isinstance(task, Task) else task(first[3].records[0] if first else None)
    scanner = Scanner(chosen)

    def stream() -> Generator[Scanned]:
        if first:
            origin, _, _, batch = first
            yield scanner.scan(batch, origin)
        for origin, rows, chunk in _larger(chunks) if scanner.measure.counts_all else chunks:
            if change is None and isinstance(chunk, Block):
                yield from scanner.scan_block(rows, chunk, origin)
            elif (more := decoded(rows, chunk)) is not None:
                yield scanner.scan(more, origin)

    return chosen, stream()


def _small(chunk: Block | Table) -> Iterator[Block | Table]:
    """Split the chunk into the best size for decoding."""
    return chunk.parts(PART_BYTES) if isinstance(chunk, Block) else iter((chunk,))


def _larger(chunks: Iterable[tuple[str, FileRows, Block | Table]]) -> Iterator[tuple[str, FileRows, Block | Table]]:
    """Join blocks of a file: a tokenizer uses all cores for many rows, and only one for few rows."""
    held: tuple[str, FileRows, Block] | None = None
    for origin, rows, chunk in chunks:
        lines = chunk if isinstance(chunk, Block) and chunk.pieces is None else None
        if held is not None and (lines is None or held[1] is not rows or len(held[2].data) >= COUNTED_BYTES):
            yield held
            held = None
        if lines is None:
            yield origin, rows, chunk
        elif held is None:
            held = origin, rows, lines
        else:
            held = origin, rows, held[2].with_next(lines)
    if held is not None:
        yield held


def _shared(
    named: dict[str, Source], task: Task | Callable[[Record | None], Task], faults: Faults, workers: int, *, items: bool
) -> tuple[Task, Generator[Scanned]]:
    """The task, and every block decoded and scanned by other processes."""
    chosen = task if isinstance(task, Task) else task(_first_record(named, items=items))

    def stream() -> Generator[Scanned]:
        with Pool(workers, chosen) as pool:
            open_files: dict[tuple[str, str], FileRows] = {}
            for reply in pool.replies(_requests(named, faults, open_files, items=chosen.items)):
                rows = open_files[reply.origin, reply.file]
                if rows.is_given_up():
                    continue  # the block was sent before its file was given up
                rows.bad += reply.bad
                faults.absorb(reply.problems, reply.counts)
                yield from reply.scanned
                rows.is_given_up()

    return chosen, stream()


def _first_record(named: dict[str, Source], *, items: bool) -> Record | None:
    batches = (batch for source in named.values() for batch in read(source, Faults(), items=items))
    return next((batch.records[0] for batch in batches if batch.records), None)


def _requests(
    named: dict[str, Source], faults: Faults, open_files: dict[tuple[str, str], FileRows], *, items: bool
) -> Iterator[tuple[Request, bytes]]:
    """Every block, with the keys of its file's first rows. ``open_files`` gets the counter of bad rows."""
    for origin, source in named.items():
        for rows, chunk in chunks_of(source, faults, items=items):
            assert isinstance(chunk, Block)
            open_files[origin, rows.file] = rows
            if rows.how is None:
                probe = FileRows(rows.file, rows.columns, None, Faults(), items=items)
                probe.of_block(chunk)
                rows.how = probe.how
            rows.seen = rows.seen or bool(chunk.pieces) or not chunk.data.isspace()
            kind = rows.how.kind.name if rows.how else None
            # The worker reports unused keys.
            request = Request(
                rows.file, origin, dict(rows.columns), kind, chunk.first_line, chunk.lines, chunk.pieces,
                rows.is_fixed,
            )  # fmt: skip
            yield request, chunk.data


def whole(data: Data, survey: Survey, task: Task, faults: Faults) -> None:
    """Report the problems of each split as a whole."""
    for name, count in sorted(survey.lost.items()):
        fix = "choose another format to keep them" if task.format else None
        faults.warn("lost", f"{count:,} rows lose {FEATURES[name]}: {task.format} cannot hold them, and dropping them "
                    "is allowed", field=name, fix=fix)  # fmt: skip
    if faults.total("error"):
        return
    for split, side in survey.sides.items():
        if not side.rows:
            share = getattr(data, split)
            fix = "hold out a smaller share, or add rows"
            if isinstance(share, float):
                fix = f"add rows, use a larger share than {share}, or use a separate file"
            what = f"none of the {survey.rows} rows was assigned to {split}"
            faults.error("empty_split", what, field=f"data.{split}", fix=fix)
    if len(survey.kinds) > 1:
        each = ", ".join(f"{name} has {'/'.join(sorted(kinds))} rows" for name, kinds in survey.kinds_by_origin.items())
        faults.error("mixed_kinds", each, field="data", fix="use one kind of rows in all splits")
    method = METHODS.get(task.method)
    if method is not None and (wrong := sorted(set(survey.kinds).difference(method.kinds))):
        what = f"{task.method} requires {' or '.join(method.kinds)} rows; these rows are {', '.join(wrong)}"
        faults.error("kind_not_for_method", what, field="data.train", fix="use another kind of rows, or another method")
    elif method is not None and (method.labels or method.task == "unpaired_preference") and not task.only_converts:
        _check_classes(survey, task, faults)
    rows = survey.sides["train"].rows
    if 0 < rows < FEW_ROWS:
        fix = f"use at least {FEW_ROWS}; 1,000 to 10,000 work well"
        faults.warn("few_rows", f"only {rows} training rows", field="data.train", fix=fix)


def _check_classes(survey: Survey, task: Task, faults: Faults) -> None:
    """Report the problems of the labels of rows: classes, numbers or ratings."""
    known = survey.sides["train"].classes
    if task.problem == "regression" or METHODS[task.method].task == "unpaired_preference":
        if len(known) == 1:
            faults.error("one_label", f"all rows have the label {next(iter(known))}", field="data.train",
                         fix="give rows with different labels")  # fmt: skip
        return
    if len(known) > MAX_CLASSES:
        faults.error("too_many_labels", f"more than {MAX_CLASSES:,} different labels", field="data.train",
                     fix="map the column that holds the label: columns: {their_name: label}")  # fmt: skip
        return
    if len(known) < 2:
        faults.error("one_label", f"all rows have the label {next(iter(known), '')!r}", field="data.train",
                     fix="give rows of at least two labels")  # fmt: skip
    for split, side in survey.sides.items():
        if unknown := sorted(side.classes - known):
            listed = ", ".join(unknown[:_LABELS_SHOWN]) + (" ..." if len(unknown) > _LABELS_SHOWN else "")
            faults.error("unknown_label", f"no training row has these labels of {split}: {listed}",
                         field=f"data.{split}", fix="give training rows with them, or correct them")  # fmt: skip
