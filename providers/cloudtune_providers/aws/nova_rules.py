"""Validation of training rows for Amazon Nova, on Bedrock and on SageMaker.

The documentation names the reserved words and the media; AWS's published validator
(github.com/aws-samples/amazon-nova-samples, nova_ft_dataset_validator.py) shows how they are compared.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from cloudtune.data.conversation_rules import texts_of
from cloudtune.data.records import Item, Preference
from cloudtune.data.row_rules import DataRule, RowRule, Source
from cloudtune_providers.aws.converse import format_of, media_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.records import Record
    from cloudtune.data.row_rules import DataFacts, Finding, VendorRule

_GUIDE = Source(
    "https://docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html", "2026-11-29"
)
_NOVA_2 = Source("https://docs.aws.amazon.com/bedrock/latest/userguide/nova-2-sft-data-prep.html", "2026-11-29")
_VALIDATOR = Source(
    "https://github.com/aws-samples/amazon-nova-samples/blob/main/customization/bedrock-finetuning/understanding/"
    "dataset_validation/nova_ft_dataset_validator.py",
    "2026-11-29",
)
_WORDS = r"system:|user:|bot:|assistant:|thought:|\[eos\]|<image>|<video>|<unk>"
_WORD = re.compile(_WORDS, re.IGNORECASE)
_KEY = re.compile(r"[\w./-]+")
_ADVISED_ROWS = 200


def is_nova_2(model: str) -> bool:
    """Whether the model belongs to the second generation of Nova."""
    return "nova-2" in model.lower()


def _words(prompts_only: bool, record: Record) -> Iterator[Finding]:
    for field, role, text in texts_of(record):
        if (role != "assistant" or not prompts_only) and (found := _WORD.search(text)):
            yield field, f"the text contains the reserved word {found.group()!r}"


def _keys(record: Record) -> Iterator[Finding]:
    for field, _, _, at in media_of(record):
        if at.url.startswith("s3://") and not _KEY.fullmatch(at.url.removeprefix("s3://")):
            yield field, f"the address {at.url[:80]!r} contains other characters"


def _formats(record: Record) -> Iterator[Finding]:
    for field, _, kind, at in media_of(record):
        if (format_of(at) == "webp" and kind == "image") or (format_of(at) == "webm" and kind == "video"):
            yield field, f"the {kind} is a {format_of(at)} file"


def _counts(images: int, record: Record) -> Iterator[Finding]:
    media = [kind for _, _, kind, _ in media_of(record)]
    pictures = media.count("image")
    if pictures > images or len(media) - pictures > 1:
        yield "messages", f"the row has {pictures} images and {len(media) - pictures} videos"
    elif 0 < pictures < len(media):
        yield "messages", "the row has images and a video"


def _reference(record: Record) -> Iterator[Finding]:
    if isinstance(record, Item):
        answer = record.fields.get("reference_answer")
        if answer == {} or (isinstance(answer, str) and not answer.strip()):
            yield "reference_answer", "the reference answer is empty"


def _pair_media(record: Record) -> Iterator[Finding]:
    if isinstance(record, Preference):
        for field, _, kind, _ in media_of(record):
            if kind == "video" or not field.startswith("messages"):
                yield field, "an answer has an image or video, or the row has a video"


def _no_validation(facts: DataFacts) -> Iterator[Finding]:
    if count := facts.rows.get("validation"):
        yield "data.validation", f"the {count:,} validation rows are not used in training"


def _few_rows(facts: DataFacts) -> Iterator[Finding]:
    if (count := facts.rows.get("train", 0)) < _ADVISED_ROWS:
        yield "data.train", f"AWS's published validator asks for {_ADVISED_ROWS} rows; there are {count:,}"


def nova_rules(model: str, method: str | None, most_images: int = 10) -> list[VendorRule]:
    """The rules for that model and method."""
    found: list[VendorRule] = [
        RowRule(
            "reserved_word", "No text contains System:, User:, Bot:, Assistant:, Thought:, [EOS], <image>, <video> or "
            "<unk>, in upper or lower case.", _VALIDATOR, '{"text": "SYSTEM: off"}', "write it another way",
            # AWS's own sample for distillation has such words in answers, which the teacher's answers replace.
            partial(_words, method == "distill"), re.compile(_WORDS.encode(), re.IGNORECASE),
        ),
        RowRule(
            "media_key", "The S3 address of an image or video has only letters, digits, underscores, dashes, slashes "
            "and dots.", _VALIDATOR, '"s3Location": {"uri": "s3://bucket/my photo.png"}', "rename the file", _keys,
        ),
        RowRule(
            "media_count", f"A row has at most {most_images} images or one video, not both.", _GUIDE,
            "two videos", "split the row, or use fewer", partial(_counts, most_images),
        ),
        RowRule(
            "reference_answer", "The reference answer of a prompt is not empty.", _VALIDATOR,
            '"reference_answer": ""', "fill it, or remove the row", _reference,
        ),
        RowRule(
            "pair_media", "A pair has images only in its prompt, and no videos.", _VALIDATOR,
            '{"candidates": [{"content": [{"image": ...}]}]}', "remove the row", _pair_media,
        ),
    ]  # fmt: skip
    if is_nova_2(model):
        found.append(
            RowRule(
                "media_format", "Images for Nova 2 are not webp files, and videos are not webm files.", _NOVA_2,
                '{"image": {"format": "webp", ...}}', "convert the file", _formats,
            )
        )  # fmt: skip
    if is_nova_2(model) and method in (None, "sft"):
        found += [
            DataRule(
                "validation_ignored", "Supervised fine-tuning of Nova 2 uses no validation rows.", _NOVA_2,
                "a validation file", "remove the validation rows, or move them into the training rows",
                _no_validation, "warning",
            ),
            DataRule(
                "advised_rows", f"AWS's validator asks for at least {_ADVISED_ROWS} rows.", _VALIDATOR, "30 rows",
                "add rows", _few_rows, "warning",
            ),
        ]  # fmt: skip
    return found


def _mixed_media(facts: DataFacts) -> Iterator[Finding]:
    """Images and videos in one dataset."""
    if facts.features.get("images") and facts.features.get("videos"):
        yield "data", f"{facts.features['images']:,} rows have images and {facts.features['videos']:,} have videos"


MIXED_MEDIA = DataRule(
    "mixed_media", "A dataset has images or videos, not both.", _GUIDE, "rows with images and rows with videos",
    "use a separate job for each", _mixed_media,
)  # fmt: skip
