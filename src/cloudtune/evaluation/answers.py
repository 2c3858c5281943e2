"""A crash-safe store of answers, so that no model generates a stored answer again."""

from __future__ import annotations

import functools
import math
import sqlite3
from contextlib import closing
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from cloudtune.errors import BackendError, InputError, InvalidRequest, LedgerError, Problem
from cloudtune.evaluation.asking import PendingPrompts
from cloudtune.files.private_files import narrow_database, open_private, private_folder
from cloudtune.ledger.evaluations import BUSY_TIMEOUT_S
from cloudtune.state import Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cloudtune.clock import Clock
    from cloudtune.evaluation.asking import Ask, Question
    from cloudtune.optional import GenerateOptions

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, asked_for TEXT NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID
"""
_FORMAT = 1
"""Part of every key. Increase it when the same options begin to mean other answers."""


class Answers:
    """The stored answers. Each is on disk before the next one is asked for."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def get_or_generate(
        self, model: str, prompts: Sequence[Question], options: GenerateOptions, ask: Ask,
        progress: Callable[[int, int], None] = lambda done, count: None, *, asked_for: str = "",
        parallel: int | None = None,
    ) -> list[Generation]:  # fmt: skip
        """The answers of a model in the order of the prompts. Asks for those that are not stored, each prompt once.

        Temporary errors of the back end are retried for the prompts without an answer.

        Args:
            model: What identifies the model and its weights.
            prompts: The prompts.
            options: Part of what an answer is stored under.
            ask: Generates answers for prompts, in order.
            progress: Called with the number of prompts that have an answer, and of all of them.
            asked_for: The jobs whose deletion deletes these answers, one a line, or the model if it has no job.
            parallel: Prompts that are asked at a time, each in a call of its own. None asks all in one call, which may
                then use batches; prompts of similar length follow each other.

        Raises:
            InputError: A prompt is no Unicode text.
            InvalidRequest: The back end rejects some prompts. All other answers are stored.
            BackendError: The back end returns other than one answer for each prompt, or no Unicode text.
            LedgerError: The store cannot be read or written.
        """
        keys = [_key(model, prompt, options) for prompt in prompts]
        try:
            with closing(self._connected()) as db:
                known = {key: found for key in dict.fromkeys(keys) if (found := _stored(db, key)) is not None}
                missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
                questions = PendingPrompts(
                    missing, len(known), ask, functools.partial(_store, db, asked_for, known), progress
                )
                if parallel is None:
                    questions.ask_in_order(self._clock)
                else:
                    questions.ask_in_parallel(self._clock, parallel)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return [known[key] for key in keys]

    def stored(self, model: str, prompts: Sequence[Question], options: GenerateOptions) -> list[Generation | None]:
        """The stored answers in the order of the prompts. None for a prompt without one. Asks no model."""
        try:
            with closing(self._connected()) as db:
                return [_stored(db, _key(model, prompt, options)) for prompt in prompts]
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> LedgerError:
        hint = "check the free disk space; if the file is damaged, remove it"
        return LedgerError(f"the answers in {self._path} cannot be read or written: {error}", hint=hint)

    def _connected(self) -> sqlite3.Connection:
        try:
            private_folder(self._path.parent)
            open_private(self._path, "ab").close()
            narrow_database(self._path)
        except OSError as error:
            raise LedgerError(f"cannot write {self._path}: {error.strerror}") from error
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(_TABLE)
        return db


def _store(
    db: sqlite3.Connection, asked_for: str, known: dict[bytes, Generation], key: bytes, answer: Generation
) -> None:
    """Store an answer. It is on disk when this returns."""
    with db:
        db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, asked_for, _encoded(answer)))
    known[key] = answer


def _key(model: str, prompt: Question, options: GenerateOptions) -> bytes:
    try:
        asked = msgspec.json.encode([_FORMAT, model, prompt, options], order="deterministic")
    except UnicodeEncodeError as error:
        fix = "convert the row to UTF-8"
        raise InputError(
            [Problem(code="not_utf8", message=f"a prompt is no Unicode text: {error}", fix=fix)]
        ) from error
    return blake2b(asked, digest_size=32).digest()


def _encoded(answer: Generation) -> bytes:
    if not all(map(math.isfinite, (answer.scores or {}).values())):
        hint = "its weights are damaged, or its training diverged: evaluate an earlier checkpoint"
        raise InvalidRequest("a probability that the model gives is not a finite number", hint=hint)
    try:
        return msgspec.json.encode(answer)
    except UnicodeEncodeError as error:
        raise BackendError(f"the answer of the model is no Unicode text: {error}") from error


def _stored(db: sqlite3.Connection, key: bytes) -> Generation | None:
    """The stored answer. None for a damaged one, which is asked for again."""
    row = db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
    try:
        return None if row is None else msgspec.json.decode(row[0], type=Generation)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        return None
