"""Checks of texts by patterns: a fast search of a whole batch, and a precise one only for its matches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cloudtune.data import record_texts
from cloudtune.data.records import Chat, Item, Message, Preference, Rated, Record
from cloudtune.errors import Problem, Severity
from cloudtune.secret_shapes import TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_ESCAPE_IN_JSON_TEXT = b"\\\\u00"
"""Within a text that is JSON itself, a character may be written with an escape that hides the signs of a rule."""


class Rule(NamedTuple):
    """A rule for strings that texts must not contain."""

    code: str
    severity: Severity
    signs: tuple[bytes, ...]
    """A canonical line that breaks the rule holds one of these."""
    pattern: re.Pattern[str]
    message: str
    """With ``{}`` for what was found."""
    fix: str
    roles: frozenset[str] | None = None
    """Roles whose texts are checked; None = all."""
    accept: Callable[[str], bool] | None = None
    """A closer look at what the pattern found."""
    hidden: bool = False
    """The match must not be shown."""
    hint: re.Pattern[bytes] | None = None
    """A line that breaks the rule also contains this, for signs that are too common."""

    escaped: bool = False
    """What breaks it is written with an escape in JSON, other than of quotes, backslashes, tabs and ends of lines."""

    def seen_in(self, lines: bytes) -> bool:
        """Whether the rule may be broken in these lines."""
        if self.hidden and _ESCAPE_IN_JSON_TEXT in lines:
            return True
        # One byte is found ten times faster than several: most batches are done with after that.
        for sign in self.signs:
            if sign[-1:] in lines and sign[:1] in lines and sign in lines:
                break
        else:
            return False
        return self.hint is None or self.hint.search(lines) is not None

    def replaced(self, match: re.Match[str]) -> str:
        """The replacement for private data that the pattern found."""
        text = match.group()
        return f"[{self.code.upper()}]" if self.accept is None or self.accept(text) else text

    def problems(self, record: Record) -> Iterator[Problem]:
        """Where the record breaks the rule: the first match in each field."""
        found: set[str] = set()
        for field, role, text in record_texts.texts(record):
            if field in found or (self.roles is not None and role not in self.roles):
                continue
            for match in self.pattern.finditer(text):
                if self.accept is None or self.accept(match.group()):
                    shown = "" if self.hidden else repr(match.group())
                    found.add(field)
                    yield Problem(
                        code=self.code, severity=self.severity, fix=self.fix,
                        field=cover(field) if self.hidden else field, message=self.message.format(shown).strip(),
                    )  # fmt: skip
                    break


def texts(record: Record) -> Iterator[tuple[str, str, str]]:
    """Field, role and text of the record's turns. `record_texts.texts` yields all texts."""
    if isinstance(record, Chat | Preference | Rated | Item):
        for name in record.__struct_fields__:
            value = getattr(record, name)
            if name in {"messages", "chosen", "rejected", "completion"}:
                for i, message in enumerate(value):
                    yield f"{name}[{i}].content", message.role, _words(message)
        return
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            yield name, "text", value
        elif isinstance(value, list):
            yield name, "text", " ".join(str(one) for one in value)


def _words(message: Message) -> str:
    return message.content if isinstance(message.content, str) else message.text


_TEMPLATE = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|begin_of_text|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<start_of_turn>", "<end_of_turn>",
    "[INST]", "[/INST]", "<<SYS>>", "</s>",
)  # fmt: skip
STANDARD: tuple[Rule, ...] = (
    Rule("template_token", "warning", (b"<|", b"<start_of", b"<end_of", b"INST]", b"<<SYS>>", b"</s>"),
         re.compile("|".join(map(re.escape, _TEMPLATE))), "{} is a chat template token",
         "remove it: training adds the template"),
    Rule("control_character", "warning", (b"\\",), re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]"),
         "{} is a control character", "remove it", hint=re.compile(rb"\\[ubf]"), escaped=True),
    Rule("control_character", "warning", (b"\x7f",), re.compile("\x7f"), "{} is a control character", "remove it"),
    Rule("broken_text", "warning", (b"\xef\xbf\xbd", b"\xc3\x83"), re.compile("\ufffd|\u00c3[\u0080-\u00bf]"),
         "{} is a sign of a wrong encoding", "read the source with its original encoding"),
)  # fmt: skip


def _luhn(digits: str) -> bool:
    """The checksum of card numbers."""
    numbers = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [number if i % 2 == 0 else (2 * number - 9 if number > 4 else 2 * number) for i, number in
               enumerate(reversed(numbers))]  # fmt: skip
    return 13 <= len(numbers) <= 19 and len(set(numbers)) > 1 and sum(doubled) % 10 == 0


def _iban(text: str) -> bool:
    """The checksum of bank accounts."""
    plain = text.replace(" ", "")
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


_DIGITS = tuple(b"%d" % digit for digit in range(10))
PRIVATE: tuple[Rule, ...] = (
    *(Rule("secret", "error", tuple(word.encode() for word in shape.words), shape.pattern,
           "a key or token stands here", "take it out, and make it invalid", hidden=True) for shape in TOKENS),
    Rule("card_number", "warning", _DIGITS, re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])"),
         "contains a card number (with a valid checksum)", "redact it", accept=_luhn, hidden=True,
         hint=re.compile(rb"\d(?:[ -]?\d){12}")),
    Rule("iban", "warning", _DIGITS, re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
         "contains a bank account number (with a valid checksum)", "redact it", accept=_iban, hidden=True,
         hint=re.compile(rb"[A-Z]{2}\d{2} ?[A-Z0-9]{4}")),
    Rule("email", "warning", (b"@",), re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b"),
         "contains an email address", "redact it", hidden=True),
)  # fmt: skip


def cover(text: str) -> str:
    """The text with private data replaced: ``[EMAIL]``."""
    for rule in PRIVATE:
        if any(sign.decode() in text for sign in rule.signs):
            text = rule.pattern.sub(rule.replaced, text)
    return text
