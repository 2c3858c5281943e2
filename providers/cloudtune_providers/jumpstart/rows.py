"""The rows that JumpStart's training scripts read.

docs.aws.amazon.com/sagemaker/latest/dg/jumpstart-foundation-models-fine-tuning-instruction-based.html, seen 2026-11-21.
"""

from __future__ import annotations

from cloudtune.data.conversation_rules import not_alternating
from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import ASIDE, read_chat
from cloudtune.data.records import Chat, Message
from cloudtune.data.row_rules import RowRule, Source
from cloudtune.data.write.formats import Format
from cloudtune.data.write.row_template import CANONICAL
from cloudtune.data.write.turns import TALK, Json, question_and_answer

TEMPLATE = '{"prompt": "{instruction}", "completion": "{response}"}\n'
"""``template.json``. Without this file the scripts add their own text around the instruction."""


def _to_instruction(chat: Chat) -> Json:
    instruction, response = question_and_answer(chat.messages)
    return {"instruction": instruction, "context": "", "response": response}


RULES = (
    RowRule(
        "role_order", "Turns of user and assistant alternate, after at most one system prompt; the user is first.",
        Source("https://docs.aws.amazon.com/sagemaker/latest/dg/jumpstart-foundation-models-fine-tuning-instruction-"
               "based.html", "2026-11-21"),
        '[{"role": "user", ...}, {"role": "user", ...}]', "join the turns, or add the one that is missing",
        not_alternating,
    ),
)  # fmt: skip
"""The scripts apply the chat template of Llama, which raises an error for other orders."""
_SYSTEM, _USER = (b'{"dialog":[{"role":"%s","content":' % role for role in (b"system", b"user"))
CHAT = Format(
    "jumpstart-chat", "JumpStart's dialogs", frozenset({"chat"}), TALK, lambda chat: {"dialog": chat.messages},
    weave=CANONICAL._replace(first_system=_SYSTEM, first_user=_USER), own="dialog",
    rules=RULES,
)  # fmt: skip
INSTRUCTION = Format(
    "jumpstart-instruction", "JumpStart's instruction, context, response", frozenset({"chat"}), frozenset(),
    _to_instruction, beside=(("template.json", TEMPLATE),), own="instruction_response",
)  # fmt: skip

DIALOG_ROWS = Kind(
    "dialog", {"dialog": list[Message]}, {}, lambda row: Chat(row.dialog), tell=lambda row: "messages" not in row,
    also=ASIDE, read=lambda row: read_chat(row, "dialog"),
)  # fmt: skip
