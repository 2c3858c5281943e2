"""Rows for Bedrock other than conversations: prompts with completions, items for graders, plain text.

docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html and rft-prepare-data.html, seen
2026-11-21.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import GRADER_KEYS
from cloudtune.data.records import Text
from cloudtune.data.write.formats import Format
from cloudtune.data.write.turns import TALK, Json, to_prompt

if TYPE_CHECKING:
    from cloudtune.data.records import Item


def _to_bedrock_rft(row: Item) -> Json:
    fields = dict(row.fields)
    if "reference_answer" not in fields:
        other = next((name for name in GRADER_KEYS if name in fields), None)
        if other is not None:
            fields = {"reference_answer": fields.pop(other), **fields}
        elif (known := _ground_truth(fields)) is not None:
            fields = {"reference_answer": known, **fields}
        else:
            raise ValueError("reference_answer: the key is missing")
    return {"messages": row.messages, **fields}


def _ground_truth(fields: Json) -> Any:
    reward = fields.get("reward_model")
    return reward.get("ground_truth") if isinstance(reward, dict) else None


def _to_input(row: Text) -> Json:
    return {"input": row.text}


PROMPT = Format(
    "bedrock-prompt", "Bedrock's prompt and completion (Llama 3.1)", frozenset({"chat"}), frozenset(), to_prompt,
    own="prompt_completion",
)  # fmt: skip
ITEMS = Format(
    "bedrock-rft", "Bedrock's items for graders", frozenset({"item"}), TALK | {"fields"}, _to_bedrock_rft, own="item"
)
TEXT = Format("bedrock-text", "Bedrock's plain text", frozenset({"text"}), frozenset(), _to_input, own="input_text")

INPUT_ROWS = Kind("input_text", {"input": str}, {}, lambda row: Text(row.input), tell=lambda row: len(row) == 1,
                  makes=Text)  # fmt: skip
