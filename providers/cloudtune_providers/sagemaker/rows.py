"""Rows for SageMaker's serverless customization.

docs.aws.amazon.com/sagemaker/latest/dg/model-customize-open-weight-dataset.html, seen 2026-11-21.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.data.read.kinds_chat import GRADER_KEYS
from cloudtune.data.records import compact
from cloudtune.data.write.formats import Format
from cloudtune.data.write.turns import TALK, Json, question_and_answer, split_system, to_pairs

if TYPE_CHECKING:
    from cloudtune.data.records import Chat, Item


def _to_prompt_with_system(chat: Chat) -> Json:
    system, messages = split_system(chat.messages)
    prompt, completion = question_and_answer(messages)
    return {**({"system": system} if system else {}), "prompt": prompt, "completion": completion}


_RLVR = {"data_source", "ability", "extra_info"}


def _to_rlvr(row: Item) -> Json:
    """Fields without a key of their own go into ``extra_info``."""
    fields = dict(row.fields)
    if "reward_model" in fields:
        reward = fields.pop("reward_model")
    else:
        name = next((name for name in GRADER_KEYS if name in fields), None)
        if name is None:
            raise ValueError("reward_model: both it and reference_answer are missing")
        reward = {"style": "rule", "ground_truth": compact(fields.pop(name))}
    more = {key: fields.pop(key) for key in _RLVR & fields.keys()}
    if fields:
        if not isinstance(more.setdefault("extra_info", {}), dict):
            raise ValueError("extra_info: must be an object, because other fields are stored in it")
        more["extra_info"] = {**more["extra_info"], **fields}
    return {
        "data_source": "cloudtune", "ability": "general", **dict(sorted(more.items())), "prompt": row.messages,
        "reward_model": reward,
    }  # fmt: skip


MESSAGES = Format("sagemaker-messages", "SageMaker serverless: messages", frozenset({"chat"}), TALK, own="chat")
PROMPT = Format(
    "sagemaker-prompt", "SageMaker serverless: system, prompt, completion", frozenset({"chat"}), frozenset({"system"}),
    _to_prompt_with_system, own="prompt_completion",
)  # fmt: skip
PREFERENCE = Format(
    "sagemaker-preference", "SageMaker serverless: pairs for DPO", frozenset({"preference"}), TALK, to_pairs,
    own="preference",
)  # fmt: skip
RLVR = Format(
    "sagemaker-rlvr", "SageMaker serverless: items with a verifiable reward", frozenset({"item"}), TALK | {"fields"},
    _to_rlvr, own="reward",
)  # fmt: skip
