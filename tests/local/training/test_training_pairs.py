"""Pairs under chat templates of several kinds: tools, answers of several turns, earlier turns that are rewritten."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rendering import set_plain_template
from cloudtune_trainer.tasks.pairs import encode_pairs
from cloudtune_trainer.tiny import build_tokenizer

from .test_training_rendering import FORGETFUL_TEMPLATE, TEMPLATES, TURNS

TOOL_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ '<call>' + call['function']['name'] + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{\"word\": \"two\"}"}}]}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]


def says(*words: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": one} for one in words]


def sides(template: str | None, record: dict[str, Any], loss_on: str = "assistant") -> list[tuple[str, str]]:
    """Of both sequences, the whole text and what is learnt of it."""
    tokenizer = build_tokenizer([], chat_template=template)
    set_plain_template(tokenizer)
    found = encode_pairs([record], tokenizer, loss_on=loss_on, max_length=10_000)
    spans = found.sides(0)
    return [(tokenizer.decode(found.ids[a:b]), tokenizer.decode(found.ids[a:b][found.learn[a:b]])) for a, b in spans]


@pytest.mark.parametrize("template", [*TEMPLATES.values(), None], ids=[*TEMPLATES, "none"])
def test_the_question_is_read_and_the_answers_are_learnt(template: str | None) -> None:
    record = {"messages": TURNS[:4], "chosen": says("Second."), "rejected": says("Another second.")}
    (good, learnt), (bad, unliked) = sides(template, record)
    end = "<|im_end|>"
    assert (learnt.strip(), unliked.strip()) == (f"Second.{end}", f"Another second.{end}")
    assert good.removesuffix(learnt) == bad.removesuffix(unliked)
    assert "First." in good


def test_the_last_turn_of_an_answer_alone() -> None:
    template = TEMPLATES["difference"]
    answer = [*says("Wait."), {"role": "user", "content": "Well?"}, *says("Second.")]
    record = {"messages": TURNS[:4], "chosen": answer, "rejected": says("No.")}
    assert [learnt for _, learnt in sides(template, record)] == ["Wait.<|im_end|>Second.<|im_end|>", "No.<|im_end|>"]
    assert sides(template, record, "last_assistant")[0][1] == "Second.<|im_end|>"
    weighed = {**record, "chosen": [answer[0] | {"weight": 0}, *answer[1:]]}
    assert sides(template, weighed)[0][1] == "Second.<|im_end|>"


def test_tools_are_shown_and_a_call_is_learnt() -> None:
    record = {"messages": TURNS[1:2], "chosen": [CALL], "rejected": says("I do not know."), "tools": TOOLS}
    (good, learnt), (bad, unliked) = sides(TOOL_TEMPLATE, record)
    assert learnt == "<call>look_up</call><|im_end|>"
    assert unliked == "I do not know.<|im_end|>"
    assert good.startswith("<|im_start|>tools")
    assert bad.startswith("<|im_start|>tools")
    answered = [CALL, {"role": "tool", "content": "2", "tool_call_id": "1"}, *says("It is 2.")]
    (_, learnt), _ = sides(TOOL_TEMPLATE, {**record, "chosen": answered})
    assert learnt == "<call>look_up</call><|im_end|>It is 2.<|im_end|>"


def test_a_template_that_rewrites_earlier_turns() -> None:
    thought = says("<think>Hm.</think>Second.")
    requested = [*TURNS[1:2], *says("<think>Eh.</think>First."), TURNS[3]]
    (good, learnt), _ = sides(FORGETFUL_TEMPLATE, {"messages": requested, "chosen": thought, "rejected": says("No.")})
    assert learnt == "<think>Hm.</think>Second.<|im_end|>"
    assert "Eh." not in good
    several = [*thought, {"role": "user", "content": "And?"}, *says("Third.")]
    with pytest.raises(TrainingProblem, match="row 1: the chat template rewrites earlier turns"):
        sides(FORGETFUL_TEMPLATE, {"messages": requested, "chosen": several, "rejected": says("No.")})
    (_, learnt), _ = sides(
        FORGETFUL_TEMPLATE, {"messages": requested, "chosen": several, "rejected": says("No.")}, "last_assistant"
    )
    assert learnt == "Third.<|im_end|>"
