"""Every format by name. Line formats as the vendors document them (checked 2026-11-21)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from cloudtune.data.records import ImagePart, Pair, TextPart, VideoPart, compact, told_format
from cloudtune.data.write.dropped_features import ALL
from cloudtune.data.write.formats import Format
from cloudtune.data.write.row_template import CLAUDE, CONVERSE, DIALOG

if TYPE_CHECKING:
    from cloudtune.data.records import Chat, ImageUrl, Item, Message, Preference, Rated, Text, VideoUrl

Json = dict[str, Any]


# --- chat


def _split_system(messages: list[Message]) -> tuple[str, list[Message]]:
    if messages and messages[0].role == "system":
        return messages[0].text, messages[1:]
    return "", messages


def _blocks(message: Message) -> list[Json]:
    """Bedrock's content: text, and images and videos that lie on S3."""
    if not isinstance(message.content, list):
        return [{"text": message.content}]
    blocks: list[Json] = []
    for part in message.content:
        if isinstance(part, TextPart):
            blocks.append({"text": part.text})
        elif message.role != "user":
            raise ValueError(
                f"messages: Bedrock accepts images and videos only in user messages, not in {message.role} messages"
            )
        elif isinstance(part, ImagePart):
            blocks.append({"image": _on_s3(part.image_url, "images", _IMAGES)})
        else:
            blocks.append({"video": _on_s3(part.video_url, "videos", _VIDEOS)})
    return blocks


# docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html, seen 2026-11-21. Converse itself
# takes more sorts of videos; tuning does not.
_IMAGES, _VIDEOS = ("png", "jpeg", "gif", "webp"), ("mov", "mkv", "mp4", "webm")
_MOST_IMAGES = 10


def _on_s3(at: ImageUrl | VideoUrl, what: str, formats: tuple[str, ...]) -> Json:
    form = told_format(at.url) if at.format is UNSET else at.format
    if not at.url.startswith("s3://") or form not in formats:
        *some, last = formats
        raise ValueError(f"messages: Bedrock accepts {what} only as s3://.../name.{', .'.join(some)} or .{last}")
    place = {"uri": at.url} if at.bucket_owner is UNSET else {"uri": at.url, "bucketOwner": at.bucket_owner}
    return {"format": form, "source": {"s3Location": place}}


def _refuse_many(messages: list[Message]) -> None:
    """A row has one video, or a few images."""
    parts = [part for message in messages if isinstance(message.content, list) for part in message.content]
    images, videos = (sum([isinstance(part, sort) for part in parts]) for sort in (ImagePart, VideoPart))
    if videos and images:
        raise ValueError("messages: Bedrock accepts images or videos, but not both in one dataset")
    if videos > 1 or images > _MOST_IMAGES:
        raise ValueError(f"messages: Bedrock accepts at most one video or {_MOST_IMAGES} images per row")


def _converse(system: str, turns: list[Json]) -> Json:
    row: Json = {"schemaVersion": "bedrock-conversation-2024"}
    if system:
        row["system"] = [{"text": system}]
    return {**row, "messages": turns}


def _to_converse(chat: Chat) -> Json:
    _refuse_many(chat.messages)
    system, messages = _split_system(chat.messages)
    return _converse(system, [{"role": message.role, "content": _blocks(message)} for message in messages])


def _to_claude(chat: Chat) -> Json:
    system, messages = _split_system(chat.messages)
    turns: list[Json] = []
    for message in messages:
        blocks = _claude_blocks(message)
        if message.role == "tool" and turns and turns[-1]["role"] == "user" and _holds_results(turns[-1]):
            turns[-1]["content"] += blocks
        else:
            plain = isinstance(message.content, str) and message.role != "tool" and len(blocks) == 1
            role = "user" if message.role == "tool" else message.role
            turns.append({"role": role, "content": message.content if plain else blocks})
    row: Json = {"system": system} if system else {}
    row["messages"] = turns
    if chat.tools is not UNSET:
        row["tools"] = [
            {"name": tool["function"]["name"], "description": tool["function"].get("description", ""),
             "input_schema": tool["function"].get("parameters", {"type": "object"})}
            for tool in chat.tools
        ]  # fmt: skip
    return row


def _holds_results(turn: Json) -> bool:
    return isinstance(turn["content"], list) and turn["content"][0].get("type") == "tool_result"


def _claude_blocks(message: Message) -> list[Json]:
    if message.role == "tool":
        if not message.tool_call_id:
            raise ValueError("messages: a tool message requires tool_call_id")
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text}]
    blocks: list[Json] = []
    if message.reasoning_content:
        blocks.append({"type": "thinking", "thinking": message.reasoning_content})
    content = [TextPart(message.content)] if isinstance(message.content, str) else message.content or []
    for part in content:
        if isinstance(part, ImagePart):
            blocks.append({"type": "image", "source": _claude_source(part.image_url.url)})
        elif isinstance(part, TextPart) and (part.text or not message.tool_calls):
            blocks.append({"type": "text", "text": part.text})
    for call in message.tool_calls or ():
        try:
            given = msgspec.json.decode(call.function.arguments)
        except msgspec.DecodeError as error:
            raise ValueError("messages: the arguments of a tool call are not valid JSON") from error
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": given})
    return blocks


def _claude_source(url: str) -> Json:
    if url.startswith("data:") and ";base64," in url:
        media, data = url[5:].split(";base64,", 1)
        return {"type": "base64", "media_type": media, "data": data}
    return {"type": "url", "url": url}


def _words(messages: list[Message]) -> tuple[str, str]:
    """The one question and its answer."""
    if [message.role for message in messages] != ["user", "assistant"]:
        raise ValueError("messages: exactly one prompt and one answer are required")
    return messages[0].text, messages[1].text


def _to_prompt(chat: Chat) -> Json:
    prompt, completion = _words(chat.messages)
    return {"prompt": prompt, "completion": completion}


def _to_prompt_with_system(chat: Chat) -> Json:
    system, messages = _split_system(chat.messages)
    prompt, completion = _words(messages)
    return {**({"system": system} if system else {}), "prompt": prompt, "completion": completion}


def _to_alpaca(chat: Chat) -> Json:
    instruction, output = _words(chat.messages)
    return {"instruction": instruction, "input": "", "output": output}


def _to_instruction(chat: Chat) -> Json:
    instruction, response = _words(chat.messages)
    return {"instruction": instruction, "context": "", "response": response}


_SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system"}


def _to_sharegpt(chat: Chat) -> Json:
    turns = []
    for message in chat.messages:
        turn: Json = {"from": _SHAREGPT[message.role], "value": message.text}
        turns.append(turn if message.weight is UNSET else {**turn, "weight": message.weight})
    return {"conversations": turns}


def _to_pair(record: Chat | Pair) -> Json | Pair:
    if isinstance(record, Pair):
        return record
    source, target = _words(record.messages)
    return {"source": source, "target": target}


# --- preferences, ratings, items


def _short(messages: list[Message], role: str) -> str | list[Message]:
    """A single plain turn as its words."""
    one = messages[0] if len(messages) == 1 else None
    if one is not None and one.role == role and isinstance(one.content, str) and not one.tool_calls:
        return one.content
    return messages


def _to_pairs(row: Preference) -> Json:
    asked = _short(row.messages, "user")
    better, worse = _short(row.chosen, "assistant"), _short(row.rejected, "assistant")
    if not (isinstance(asked, str) and isinstance(better, str) and isinstance(worse, str)):
        asked, better, worse = row.messages, row.chosen, row.rejected
    return {"prompt": asked, "chosen": better, "rejected": worse}


def _to_openai_preference(row: Preference) -> Json:
    given: Json = {"messages": row.messages}
    if row.tools is not UNSET:
        given["tools"] = row.tools
    if row.parallel_tool_calls is not UNSET:
        given["parallel_tool_calls"] = row.parallel_tool_calls
    return {"input": given, "preferred_output": row.chosen, "non_preferred_output": row.rejected}


def _to_nova_preference(row: Preference) -> Json:
    if len(row.chosen) != 1 or len(row.rejected) != 1:
        raise ValueError("chosen: Nova accepts one turn per answer")
    _refuse_many(row.messages)
    system, messages = _split_system(row.messages)
    turns: list[Json] = [{"role": message.role, "content": _blocks(message)} for message in messages]
    candidates = [
        {"content": _blocks(row.chosen[0]), "preferenceLabel": "preferred"},
        {"content": _blocks(row.rejected[0]), "preferenceLabel": "non-preferred"},
    ]
    return _converse(system, [*turns, {"role": "assistant", "candidates": candidates}])


def _to_kto(row: Rated) -> Json:
    asked, answer = _short(row.messages, "user"), _short(row.completion, "assistant")
    if not (isinstance(asked, str) and isinstance(answer, str)):
        asked, answer = row.messages, row.completion
    return {"prompt": asked, "completion": answer, "label": row.label}


def _to_rft(row: Item) -> Json:
    return {"messages": row.messages, **row.fields}


_REFERENCES = ("reference_answer", "answer", "reference", "ground_truth")


def _to_bedrock_rft(row: Item) -> Json:
    fields = dict(row.fields)
    if "reference_answer" not in fields:
        other = next((name for name in _REFERENCES if name in fields), None)
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


_RLVR = {"data_source", "ability", "extra_info"}


def _to_rlvr(row: Item) -> Json:
    """What has no key of its own there goes into ``extra_info``."""
    fields = dict(row.fields)
    if "reward_model" in fields:
        reward = fields.pop("reward_model")
    else:
        name = next((name for name in _REFERENCES if name in fields), None)
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


def _to_input(row: Text) -> Json:
    return {"input": row.text}


# Without this file JumpStart puts words of its own around the instruction (docs.aws.amazon.com/sagemaker/latest/dg/
# jumpstart-foundation-models-fine-tuning-instruction-based.html, seen 2026-11-21).
JUMPSTART_TEMPLATE = '{"prompt": "{instruction}", "completion": "{response}"}\n'
_CHAT, _PAIRS, _ITEM = frozenset({"chat"}), frozenset({"preference"}), frozenset({"item"})
_NONE: frozenset[str] = frozenset()
_TALK = frozenset({"system", "turns"})
_BLOCKS = _TALK | {"images", "videos", "parts", "bucket_owners", "media_formats"}
_OPENAI = ALL - {"thoughts", "videos", "bucket_owners", "media_formats", "unanswered"}
_CLAUDE = ALL - {"weights", "names", "videos", "bucket_owners", "media_formats", "unanswered"}
_OWN = {
    "openai": "chat", "azure-openai": "chat", "openai-preference": "openai_preference", "openai-rft": "item",
    "azure-openai-preference": "openai_preference", "azure-openai-rft": "item", "bedrock-converse": "converse",
    "bedrock-prompt": "prompt_completion", "bedrock-rft": "item", "bedrock-text": "input_text",
    "nova-preference": "nova_preference", "claude": "claude", "sagemaker-messages": "chat",
    "sagemaker-prompt": "prompt_completion", "sagemaker-preference": "preference", "sagemaker-rlvr": "reward",
    "jumpstart-chat": "dialog", "jumpstart-instruction": "instruction_response",
    "prompt-completion": "prompt_completion", "alpaca": "instruction", "sharegpt": "sharegpt",
    "preference": "preference", "kto": "rated", "pair": "pair",
}  # fmt: skip
"""The kind that reads a format's rows back. Canonical records are always rewritten, because they are compared."""
FORMATS: dict[str, Format] = {
    one.name: one._replace(own=_OWN.get(one.name))
    for one in (
        Format("cloudtune", "cloudtune's own canonical records", _NONE, ALL),
        Format("openai", "OpenAI's chat messages", _CHAT, _OPENAI),
        Format("azure-openai", "OpenAI's chat messages, with a byte order mark", _CHAT, _OPENAI, bom=True),
        Format("openai-preference", "OpenAI's DPO preference pairs", _PAIRS, _OPENAI, _to_openai_preference),
        Format("openai-rft", "OpenAI's grader items", _ITEM, _OPENAI, _to_rft),
        Format("azure-openai-preference", "OpenAI's pairs, with a byte order mark", _PAIRS, _OPENAI,
               _to_openai_preference, bom=True),
        Format("azure-openai-rft", "OpenAI's items, with a byte order mark", _ITEM, _OPENAI, _to_rft, bom=True),
        Format("bedrock-converse", "Bedrock's conversations (Nova, Llama 3.2 and 3.3)", _CHAT,
               _BLOCKS | {"unanswered"}, _to_converse, weave=CONVERSE),
        Format("bedrock-prompt", "Bedrock's prompt and completion (Llama 3.1)", _CHAT, _NONE, _to_prompt),
        Format("bedrock-rft", "Bedrock's grader items", _ITEM, _TALK | {"fields"}, _to_bedrock_rft),
        Format("bedrock-text", "Bedrock's plain text", frozenset({"text"}), _NONE, _to_input),
        Format("nova-preference", "Nova's preference pairs", _PAIRS, _BLOCKS, _to_nova_preference),
        Format("claude", "Claude's messages", _CHAT, _CLAUDE, _to_claude, weave=CLAUDE),
        Format("sagemaker-messages", "SageMaker serverless: messages", _CHAT, _TALK),
        Format("sagemaker-prompt", "SageMaker serverless: system, prompt, completion", _CHAT, frozenset({"system"}),
               _to_prompt_with_system),
        Format("sagemaker-preference", "SageMaker serverless: DPO preference pairs", _PAIRS, _TALK, _to_pairs),
        Format("sagemaker-rlvr", "SageMaker serverless: items with a verifiable reward", _ITEM, _TALK | {"fields"},
               _to_rlvr),
        Format("jumpstart-chat", "JumpStart's dialogs", _CHAT, _TALK, lambda chat: {"dialog": chat.messages},
               weave=DIALOG),
        Format("jumpstart-instruction", "JumpStart's instruction, context, response", _CHAT, _NONE, _to_instruction,
               beside=(("template.json", JUMPSTART_TEMPLATE),)),
        Format("prompt-completion", "prompt and completion", _CHAT, _NONE, _to_prompt),
        Format("alpaca", "instruction, input, output", _CHAT, _NONE, _to_alpaca),
        Format("sharegpt", "conversations of from and value", _CHAT, _TALK | {"weights"}, _to_sharegpt),
        Format("preference", "prompt, chosen, rejected", _PAIRS, ALL - {"tools"}, _to_pairs),
        Format("kto", "prompt, completion, label", frozenset({"rated"}), ALL, _to_kto),
        Format("pair", "source and target", frozenset({"chat", "pair"}), _NONE, _to_pair),
    )
}  # fmt: skip
