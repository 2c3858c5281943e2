"""Rows of recordings with their transcripts: checks of the sound and of the script, and names by content."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloudtune.data import encode, prepare
from cloudtune.data.media import recordings
from cloudtune.data.media.addressing import media_folder
from cloudtune.errors import DataError
from cloudtune.evaluation.metrics import task_of
from cloudtune.evaluation.rows import read_rows
from cloudtune.spec import Data, Source

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.errors import Problem

soundfile = pytest.importorskip("soundfile")
RATE = 16_000


def tone(seconds: float = 0.2, level: float = 0.3, rate: int = RATE) -> np.ndarray[Any, Any]:
    return level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def wav(samples: np.ndarray[Any, Any], rate: int = RATE, kind: str = "WAV") -> bytes:
    stream = io.BytesIO()
    subtype, form = ("FLOAT", "WAV") if kind == "FLOAT" else (None, kind)
    soundfile.write(stream, samples, rate, format=form, subtype=subtype)
    return stream.getvalue()


def problems(tmp_path: Path, **files: tuple[bytes, str]) -> dict[str, Problem]:
    """The problems of a row for each file, by code."""
    rows = []
    for name, (content, transcript) in files.items():
        (tmp_path / f"{name}.wav").write_bytes(content)
        rows.append({"audio": f"{name}.wav", "transcript": transcript})
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = Data.model_validate({"train": str(tmp_path / "rows.jsonl")})
    try:
        found = prepare(data, method="speech_recognition").problems
    except DataError as error:
        found = error.problems
    return {problem.code: problem for problem in found}


@pytest.mark.parametrize(("content", "code", "severity"), [
    (b"no sound", "not_a_recording", "error"),
    (wav(tone())[:600], "damaged_recording", "error"),
    (wav(np.where(np.arange(3200) == 99, np.nan, tone()), kind="FLOAT"), "damaged_recording", "error"),
    (wav(np.where(np.arange(3200) == 99, np.inf, tone()), kind="FLOAT"), "damaged_recording", "error"),
    (wav(tone(9), kind="MP3")[:3000], "damaged_recording", "warning"),
    (wav(np.zeros(0)), "empty_recording", "error"),
    (wav(np.zeros(4000)), "silent_recording", "warning"),
    (wav(tone(level=4.0).clip(-1, 1)), "clipped_recording", "warning"),
    (wav(tone(rate=8000), 8000), "low_rate", "warning"),
    (wav(np.stack([tone(), tone()], 1)), "several_channels", "warning"),
    (wav(tone(31)), "long_recording", "warning"),
])  # fmt: skip
def test_each_fault_of_a_recording_has_its_code_place_and_remedy(
    tmp_path: Path, content: bytes, code: str, severity: str
) -> None:
    found = problems(tmp_path, good=(wav(tone(0.3)), "one"), bad=(content, "two"))
    assert found[code].severity == severity
    assert (found[code].line, found[code].field) == (2, "audio")
    assert "bad.wav" in found[code].message
    assert found[code].fix
    assert code in recordings.RULES


def test_a_recording_is_read_in_parts() -> None:
    loud = np.concatenate([np.zeros(2 << 20), tone(9, level=4.0).clip(-1, 1)])
    found = {problem.code: problem for problem in recordings.check(wav(loud), "a.wav").problems}
    assert set(found) == {"long_recording", "clipped_recording"}
    stream = bytearray(wav(tone()))
    for size in (0, 0x7FFFF024, 0xFFFFFFFF):  # as programs write it that do not know the length yet
        stream[4:8] = size.to_bytes(4, "little")
        assert recordings.check(bytes(stream), "a.wav") == ([], ".wav")
    (problem,) = recordings.check(b"no sound", "a.wav").problems
    assert "BytesIO" not in problem.message


def test_a_transcript_in_another_script_and_an_empty_one_are_found(tmp_path: Path) -> None:
    files = {f"r{n}": (wav(tone(0.1 + n / 100)), "hello there") for n in range(12)}
    found = problems(tmp_path, **files, other=(wav(tone(0.5)), "привет"))
    assert found["another_script"].line == 13
    assert "Cyrillic" in found["another_script"].message
    japanese = {name: (content, "ひらがなです") for name, (content, _) in files.items()}
    mixed = {"kanji": (wav(tone(0.5)), "東京都"), "katakana": (wav(tone(0.6)), "コーヒー")}
    assert "another_script" not in problems(tmp_path, **japanese, **mixed)
    assert "blank" in problems(tmp_path, **files, empty=(wav(tone(0.5)), " "))


def test_recordings_travel_and_are_evaluated_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(wav(tone(), kind="FLAC"))
    (tmp_path / "rows.jsonl").write_text('{"audio": "a.flac", "transcript": "one two"}\n')
    source = str(tmp_path / "rows.jsonl")
    data, to = Data.model_validate({"train": source}), tmp_path / "out.jsonl"
    encode(data, split="train", format="cloudtune", to=to, method="speech_recognition")
    (file,) = media_folder(to).iterdir()
    assert file.suffix == ".flac"
    assert file.read_bytes() == (tmp_path / "a.flac").read_bytes()
    kind, (row,) = read_rows(Source(path=source))
    assert row.prompt == {"audio": str(tmp_path / "a.flac"), "content": f"media/{file.name}"}
    assert (row.expected, task_of(kind, [row.expected])) == ("one two", "text")
