"""Exact token counts with a model's own tokenizer and chat template; needs the ``tokenizers`` package, no torch."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import msgspec

from cloudtune.data.checks.chat_template import compiled
from cloudtune.data.records import Chat
from cloudtune.data.rules import texts
from cloudtune.errors import DataError, Problem
from cloudtune.files.model_files import read_json_object
from cloudtune.files.regular_file import open_regular, read_regular
from cloudtune.install_command import install_command
from cloudtune.plugins import TOKENIZERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.records import Message, Record

LARGEST_TOKENIZER = 1 << 30
LARGEST_TEMPLATE = 16 << 20
_TOGETHER = 128
"""Records whose tokens are counted in one call of the tokenizer."""


def tokenizer_files(source: str) -> list[Path]:
    """The existing files that determine the number of tokens of a text."""
    if source in TOKENIZERS.plugins:
        return []
    folder = Path(source)
    if not folder.is_dir():
        return [folder]
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return [folder / name for name in names if (folder / name).is_file()]


class Span(NamedTuple):
    """One token: its place in the text that is counted, and whether the model is trained on it."""

    start: int
    end: int
    learnt: bool


class Counter(Protocol):
    """Counts tokens of records."""

    def count(self, records: list[Record]) -> list[int]:
        """The number of tokens of each record. Raises ValueError for one that cannot be rendered."""

    def spans(self, record: Record) -> tuple[str, list[Span]]:
        """The text that is counted, and its tokens."""


def counter_of(source: str) -> Counter:
    """The counter for the tokenizer of a folder, a tokenizer.json or a GGUF file, or the plugin of that name."""
    if source in TOKENIZERS.plugins:
        return cast("Counter", TOKENIZERS.make(source, source))
    return _of_gguf(Path(source)) if source.lower().endswith(".gguf") else TokenCounter(source)


GGUF_TOKENIZER = "cloudtune_trainer.gguf_tokenizer:save_tokenizer"
"""Return the function that reads a tokenizer from a GGUF file. It needs transformers and is imported on use."""


def _of_gguf(file: Path) -> TokenCounter:
    if not file.is_file():
        raise _refusal(file, "no such file", "use a GGUF file, or a folder with a tokenizer.json")
    module, _, name = GGUF_TOKENIZER.partition(":")
    with tempfile.TemporaryDirectory(prefix="cloudtune-tokenizer-") as folder:
        try:
            getattr(importlib.import_module(module), name)(file.absolute(), Path(folder))
        except ImportError as error:
            fix = install_command("local")
            raise _refusal(file, f"reading the tokenizer of a GGUF file requires {error.name}", fix) from error
        except Exception as error:  # the trainer's own exception type, which is not imported here
            raise _refusal(file, str(error), "use another file") from error
        counter = TokenCounter(folder)
        counter.load()
    return counter


def _refusal(file: Path, message: str, fix: str) -> DataError:
    return DataError([Problem(code="no_tokenizer", message=message, file=str(file), field="tokenizer", fix=fix)])


@contextlib.contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise ValueError for a panic of the tokenizers package, which is no `Exception`: a damaged file can cause it."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from error


class TokenCounter:
    """Counts the tokens of records as rendered for the model."""

    def __init__(self, source: str) -> None:
        folder = Path(source)
        self.file = folder / "tokenizer.json" if folder.is_dir() else folder
        try:
            with open_regular(self.file):
                size = self.file.stat().st_size
        except FileNotFoundError as error:
            raise _refusal(self.file, "no such file", "name a folder that holds tokenizer.json") from error
        except OSError as error:
            raise _refusal(self.file, f"it cannot be read: {error.strerror}", "take another file") from error
        if size > LARGEST_TOKENIZER:
            raise _refusal(self.file, f"it is larger than {LARGEST_TOKENIZER:,} bytes", "take another file")
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            fix = install_command("local")
            raise _refusal(self.file, "counting tokens requires the tokenizers package", fix) from error
        try:
            with panics_as_errors():
                self._tokenizer: Any = Tokenizer.from_file(str(self.file))
        except Exception as error:  # the package raises bare Exception
            raise _refusal(self.file, f"not a valid tokenizer: {error}", "use another file") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def special_texts(self) -> list[str]:
        """Every special token as text."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return [str(token.content) for token in added if token.special]

    def load(self) -> None:
        """Read everything that is otherwise read lazily: the files may not exist later."""
        _ = self.template, self.special

    def count(self, records: list[Record]) -> list[int]:
        """How many tokens each record has."""
        if len(records) <= _TOGETHER:
            return self._lengths([self.text(record) for record in records])
        # The tokenizer releases the GIL, so the next records are rendered meanwhile.
        with ThreadPoolExecutor(1) as aside:
            parts = [aside.submit(self._lengths, [self.text(record) for record in records[start : start + _TOGETHER]])
                     for start in range(0, len(records), _TOGETHER)]  # fmt: skip
        return [length for part in parts for length in part.result()]

    def _lengths(self, rendered: list[str]) -> list[int]:
        return [len(one) for one in self._encode(rendered)]

    def _encode(self, rendered: list[str]) -> list[Any]:
        # The template writes the special tokens itself; without one the tokenizer adds them.
        special = self.template is None
        fast = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        with panics_as_errors():
            return fast(rendered, add_special_tokens=special)  # type: ignore[no-any-return]

    def text(self, record: Record) -> str:
        """The record as rendered for the model."""
        if isinstance(record, Chat):
            return self.render(record.messages, record)
        return "\n".join([words for _, _, words in texts(record)])

    def render(self, messages: list[Message], chat: Chat, *, prompt: bool = False) -> str:
        """Some of a conversation's messages by the template; ``prompt`` adds the beginning of an answer."""
        if self.template is None:
            return "\n".join([message.text for message in messages])
        try:
            return self.template.render(  # type: ignore[no-any-return]
                messages=[_shown(message) for message in messages],
                tools=msgspec.to_builtins(chat.tools) if chat.tools is not msgspec.UNSET else None,
                add_generation_prompt=prompt, **self.special,
            )  # fmt: skip
        except Exception as error:
            raise ValueError(f"messages: rejected by the chat template: {error}") from error

    def spans(self, record: Record) -> tuple[str, list[Span]]:
        """Return the rendered text and its tokens. Assistant tokens are trained on, or all if there are no turns."""
        text = self.text(record)
        with panics_as_errors():
            encoded = self._tokenizer.encode(text, add_special_tokens=self.template is None)
        parts = self._learnt(record, text) if isinstance(record, Chat) else [(0, len(text))]
        return text, [
            Span(start, end, any(start >= begin and end <= finish and end > start for begin, finish in parts))
            for start, end in encoded.offsets
        ]

    def _learnt(self, chat: Chat, text: str) -> list[tuple[int, int]]:
        """The spans of the answers: the text that is added when the answer is appended to the earlier turns."""
        parts: list[tuple[int, int]] = []
        for i, message in enumerate(chat.messages):
            if message.role == "assistant" and message.weight != 0:
                before = self.render(chat.messages[:i], chat, prompt=True)
                begin, end = len(before), len(self.render(chat.messages[: i + 1], chat))
                answer = message.text.strip()
                if not text.startswith(before) or answer not in text[begin:end]:
                    # the template writes earlier turns in another way than the last one: search for the text
                    at = text.find(answer, parts[-1][1] if parts else 0)
                    begin, end = (at, at + len(answer)) if at >= 0 else (begin, max(begin, end))
                parts.append((begin, min(end, len(text))))
        return parts

    @cached_property
    def _config(self) -> dict[str, Any]:
        file = self.file.parent / "tokenizer_config.json"
        try:
            return read_json_object(file) if file.exists() else {}
        except OSError as error:
            raise _refusal(file, f"it cannot be read: {error.strerror}", "fetch the model again") from error
        except ValueError as error:
            raise _refusal(file, f"not valid JSON: {error}", "download the model again") from error

    @cached_property
    def special(self) -> dict[str, str]:
        """The texts of those that exist of ``bos_token``, ``eos_token``, ``pad_token`` and ``unk_token``."""
        found = {}
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            value = self._config.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                found[name] = value
        return found

    @cached_property
    def template(self) -> Any:
        """The chat template; None if the tokenizer has none."""
        file = self.file.parent / "chat_template.jinja"
        try:
            written = read_regular(file, LARGEST_TEMPLATE).decode() if file.exists() else None
        except OSError as error:
            raise _refusal(file, f"it cannot be read: {error.strerror}", "fetch the model again") from error
        except UnicodeDecodeError as error:
            raise _refusal(file, f"it is not UTF-8: {error}", "fetch the model again") from error
        source = self._config.get("chat_template") if written is None else written
        if isinstance(source, list):
            named = (one for one in source if isinstance(one, dict) and one.get("name") == "default")
            source = next((one.get("template") for one in named), None)
        if not source:
            return None
        try:
            return compiled(str(source))
        except Exception as error:  # a template can make the compiler raise any exception
            raise _refusal(
                self.file.parent, f"its chat template is damaged: {error}", "download the model again"
            ) from error


def _shown(message: Message) -> dict[str, Any]:
    """The message in the templates' format: the arguments of a call are an object."""
    shown: dict[str, Any] = msgspec.to_builtins(message)
    for call in shown.get("tool_calls", ()):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):  # malformed text is rendered unchanged
            call["function"]["arguments"] = msgspec.json.decode(call["function"]["arguments"])
    return shown
