"""Checks of a recording and its transcript: whether the file can be read, and what a model could hear."""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.data.media.images import Checked
from cloudtune.errors import Problem
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.errors import Severity

RULES: dict[str, str] = {
    "not_a_recording": "A recording is a WAV, FLAC, Ogg or MP3 file.",
    "damaged_recording": "A recording is complete.",
    "empty_recording": "A recording has sound.",
    "long_recording": "A recording lasts at most an hour; Whisper hears 30 seconds.",
    "low_rate": "A recording has at least 16,000 samples per second.",
    "several_channels": "A recording has one channel.",
    "silent_recording": "A recording is louder than silence.",
    "clipped_recording": "The loudest samples of a recording are not cut off.",
    "another_script": "Transcripts are written in one script.",
}
"""Problem code -> the rule. The rules after the first three are warnings, except for more than an hour.

An MP3 file that may be incomplete is a warning too.
"""
_SUFFIXES = {"WAV": ".wav", "WAVEX": ".wav", "FLAC": ".flac", "OGG": ".ogg", "MP3": ".mp3"}
_STREAMED = 0x7FFFF000
"""Larger sizes are in the head of a WAV file that was written to a pipe, or 0."""
_RATE = 16_000
_WINDOW_S, _MOST_S = 30, 3600
_SILENCE = 1e-3
_LOUD, _MOST_LOUD = 0.999, 0.001
_PART = 1 << 20
"""Samples that are read at once, of all channels together."""
_WHOLE = 0.95
"""The length of an MP3 file may be an estimate."""
_EAST_ASIAN = ("Cjk", "Hiragana", "Katakana")
"""Japanese mixes them, and Chinese has the first one alone."""
_SURE = 10
"""Transcripts before the usual script is known."""


def check(content: bytes, name: str) -> Checked:
    """Decode the recording. ``name`` is what messages call it."""
    try:
        import soundfile
    except ImportError:
        fix = install_command("audio")
        return Checked([_problem("not_installed", "checking recordings requires soundfile", fix)])
    shown = name if len(name) <= 120 else f"{name[:120]}..."
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            seconds = file.frames / file.samplerate
            if not file.frames:
                return Checked([_problem("empty_recording", f"{shown} has no sound", "remove the row")])
            if seconds > _MOST_S:
                message = f"{shown} lasts {seconds / 60:.0f} minutes"
                return Checked([_problem("long_recording", message, "split it at pauses")])
            if _declared(content) > len(content):
                message = f"{shown} has {len(content):,} of {_declared(content):,} bytes"
                return Checked([_problem("damaged_recording", message, "copy or record it again")])
            levels = _levels(file)
            if levels is None:
                message = f"{shown} has samples that are not finite numbers"
                return Checked([_problem("damaged_recording", message, "save or record it again")])
            suffix = _SUFFIXES.get(file.format, ".wav")
            return Checked([*_warnings(file, levels, shown, seconds)], suffix)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        fix, reason = "save it as WAV or FLAC, or remove the row", getattr(error, "error_string", error)
        return Checked([_problem("not_a_recording", f"{shown} cannot be read: {reason}", fix)])


class _Levels(NamedTuple):
    """What the samples of a recording are, as the mean of its channels."""

    frames: int
    loudest: float
    cut_off: int
    """Samples at the largest value."""


def _levels(file: Any) -> _Levels | None:
    """Read the recording in parts, so that the memory does not grow with it; None if a sample is no finite number."""
    import numpy as np

    found, size = _Levels(0, 0.0, 0), max(1, _PART // file.channels)
    while len(part := file.read(size, dtype="float32", always_2d=True)):  # `blocks` does not see an early end
        if not np.isfinite(part).all():
            return None
        level = np.abs(part.mean(axis=1))
        loudest = max(found.loudest, float(level.max(initial=0.0)))
        found = _Levels(found.frames + len(level), loudest, found.cut_off + int((level >= _LOUD).sum()))
    return found


def _warnings(file: Any, levels: _Levels, shown: str, seconds: float) -> Iterator[Problem]:
    if seconds > _WINDOW_S:
        message = f"{shown} lasts {seconds:.1f} s, and Whisper hears {_WINDOW_S} s"
        yield _problem("long_recording", message, "split it at pauses", "warning")
    if file.samplerate < _RATE:
        message = f"{shown} has {file.samplerate:,} samples per second, and is resampled to the model's rate"
        yield _problem("low_rate", message, "use the original recording, if it has a higher rate", "warning")
    if file.channels > 1:
        message = f"{shown} has {file.channels} channels; their mean is used"
        yield _problem("several_channels", message, "keep the channel of the speaker", "warning")
    if levels.frames < _WHOLE * file.frames:
        message = f"{shown} has sound for {levels.frames / file.samplerate:.1f} s, and its length is {seconds:.1f} s"
        yield _problem("damaged_recording", message, "copy or record it again", "warning")
    if levels.loudest < _SILENCE:
        yield _problem("silent_recording", f"{shown} is silent", "record it again, or remove the row", "warning")
    elif (share := levels.cut_off / levels.frames) > _MOST_LOUD:
        message = f"{shown} is cut off at the largest value in {share:.1%} of its samples"
        yield _problem("clipped_recording", message, "record it again at a lower level", "warning")


def _declared(content: bytes) -> int:
    """The bytes that a WAV file says it has, without which libsndfile reads the part that is there; else 0."""
    size = int.from_bytes(content[4:8], "little")
    return 8 + size if content[:4] == b"RIFF" and 0 < size < _STREAMED else 0


class Scripts:
    """Finds transcripts that are written in another script than the others before them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def check(self, transcript: str) -> Problem | None:
        """The problem of that transcript, if its script is another one."""
        script = _script_of(transcript)
        if script is None:
            return None
        self._counts[script] += 1
        usual, count = self._counts.most_common(1)[0]
        if script == usual or count < _SURE:
            return None
        message = f"the transcript {transcript[:40]!r} is written in {script}, and most others in {usual}"
        return _problem("another_script", message, "correct it, or train on one language at a time", "warning")


def _script_of(text: str) -> str | None:
    """The script of most letters, by the first word of their names in Unicode."""
    names = Counter(re.split("[ -]", unicodedata.name(letter, ""))[0].title() for letter in text if letter.isalpha())
    if sum(names[name] for name in _EAST_ASIAN) * 2 > names.total():
        return "Chinese or Japanese"
    return names.most_common(1)[0][0] if names else None


def _problem(code: str, message: str, fix: str, severity: Severity = "error") -> Problem:
    return Problem(code=code, message=message, fix=fix, severity=severity)
