"""What tasks share whose rows are files of images or recordings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.samples import Cuts, Samples, starts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cloudtune_trainer.records import Record


@dataclass(frozen=True)
class MediaSamples(Samples):
    """Files, and the target of each as an entry of an array. Each file counts as one token."""

    paths: tuple[str, ...]
    labels: NDArray[Any]

    def token_budget(self, max_length: int, rows: int) -> int:
        """See `Samples.token_budget`."""
        return rows


def media_samples(paths: Sequence[str], labels: Any, cuts: Cuts | None = None) -> MediaSamples:
    """Samples of these files. Raises ``bad_data`` if there is none."""
    if not paths:
        raise TrainingProblem("bad_data", "no row is left to train on", "The job's events name the dropped rows.")
    count = len(paths)
    return MediaSamples(
        np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.bool_), np.arange(count + 1), cuts or Cuts(),
        tuple(paths), np.asarray(labels),
    )  # fmt: skip


def checked_rows(records: Iterable[Record], field: str, target: str) -> Iterator[Record]:
    """The records. Raises ``bad_data`` for one without a file or a target."""
    for row, record in enumerate(records, 1):
        if not isinstance(record.get(field), str) or target not in record:
            raise TrainingProblem("bad_data", f'row {row}: a row of this method has "{field}" and "{target}"')
        yield record


def path_of(given: Any, field: str) -> str:
    """The file of an input: its path, or a row. Raises ``bad_data`` for an input of another kind."""
    path = given.get(field) if isinstance(given, dict) else given
    if not isinstance(path, str) or not path:
        raise TrainingProblem("bad_data", f'the input is neither a path nor a row with "{field}"')
    return path


@dataclass(frozen=True)
class SpeechSamples(Samples):
    """Recordings, and the tokens of the transcript of each."""

    paths: tuple[str, ...]

    def token_budget(self, max_length: int, rows: int) -> int:
        """See `Samples.token_budget`."""
        return rows * int(self.lengths.max())


def speech_samples(paths: Sequence[str], targets: Sequence[Sequence[int]], cuts: Cuts) -> SpeechSamples:
    """Samples of these recordings. Raises ``bad_data`` if there is none."""
    if not paths:
        reasons = "; ".join(f"{len(rows)} rows are {reason}" for reason, rows in cuts.unshown.items())
        raise TrainingProblem("bad_data", f"no row is left to train on: {reasons}", "Correct the rows.")
    ids = np.concatenate([np.asarray(row, dtype=np.int32) for row in targets])
    return SpeechSamples(ids, np.ones(len(ids), dtype=np.bool_), starts_of(targets), cuts, tuple(paths))
