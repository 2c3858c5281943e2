"""The trained text is the assistant's answer and its end, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rendering import PLAIN_TEMPLATE, Renderer, set_plain_template, turn_end
from cloudtune_trainer.samples import encode_records
from cloudtune_trainer.tiny import CHAT_TEMPLATE, MARKED_CHAT_TEMPLATE, build_tokenizer

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "First."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "Second."},
]
# As some published ones do: reasoning is shown in the last turn only.
FORGETFUL_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHORT_MARKS = MARKED_CHAT_TEMPLATE.replace(
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}",
    "{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
)
TEMPLATES = {"difference": CHAT_TEMPLATE, "marks": MARKED_CHAT_TEMPLATE, "short marks": SHORT_MARKS}


def learnt(template: str | None, messages: list[dict[str, Any]], loss_on: str = "assistant") -> list[list[str]]:
    """Per sample, the stretches of text that are learnt."""
    tokenizer = build_tokenizer([], chat_template=template)
    set_plain_template(tokenizer)
    samples = encode_records([{"messages": messages}], tokenizer, loss_on=loss_on, max_length=10_000)
    found = []
    for i in range(len(samples)):
        ids = samples.ids[samples.starts[i] : samples.starts[i + 1]]
        mask = samples.learn[samples.starts[i] : samples.starts[i + 1]]
        stretches: list[list[int]] = []
        for place in mask.nonzero()[0].tolist():
            if stretches and stretches[-1][-1] == place - 1:
                stretches[-1].append(place)
            else:
                stretches.append([place])
        found.append([tokenizer.decode(ids[stretch]) for stretch in stretches])
    return found


def test_the_longest_end_token_is_tried_first() -> None:
    tokenizer = build_tokenizer([], chat_template=CHAT_TEMPLATE)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<e>b", "<e>", "<e>a", "<e>ab", "<e>abc"]})
    ends = Renderer(tokenizer, loss_on="assistant")._ends
    assert [end for end in ends if end.startswith("<e>")] == ["<e>abc", "<e>ab", "<e>a", "<e>b", "<e>"]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_assistant_turns_and_their_ends(template: str) -> None:
    assert learnt(template, TURNS) == [["First.<|im_end|>", "Second.<|im_end|>"]]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_last_turn_only(template: str) -> None:
    assert learnt(template, TURNS, "last_assistant") == [["Second.<|im_end|>"]]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_weight_nought_is_not_learnt(template: str) -> None:
    turns = [dict(turn) for turn in TURNS]
    turns[4]["weight"] = 0
    turns[2]["weight"] = 1
    assert learnt(template, turns) == [["First.<|im_end|>"]]


def test_all_learns_the_whole_dialogue_but_its_first_token() -> None:
    ((text,),) = learnt(CHAT_TEMPLATE, TURNS[1:3], "all")
    assert text == "user\nOne?<|im_end|>\n<|im_start|>assistant\nFirst.<|im_end|>"


def test_a_template_that_rewrites_earlier_turns_gives_a_sample_for_each() -> None:
    turns = [dict(turn) for turn in TURNS]
    turns[2]["content"] = "<think>hm</think>First."
    assert learnt(FORGETFUL_TEMPLATE, turns) == [["<think>hm</think>First.<|im_end|>"], ["Second.<|im_end|>"]]


def test_no_template_falls_back_to_the_plain_one() -> None:
    assert learnt(None, TURNS) == [[" First.<|im_end|>", " Second.<|im_end|>"]]
    tokenizer = build_tokenizer([], chat_template=None)
    assert set_plain_template(tokenizer)
    assert tokenizer.chat_template == PLAIN_TEMPLATE
    text = tokenizer.apply_chat_template(TURNS[:2], tokenize=False, add_generation_prompt=True)
    assert text == "Be brief.\nUser: One?\nAssistant:"


def test_an_end_is_added_where_the_template_has_none() -> None:
    template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert learnt(template, TURNS[1:3]) == [["First.\n<|im_end|>"]]


@pytest.mark.parametrize("words", ["Grüße, 世界 👋🏽", "  spaces  inside  ", "{{ not jinja }}", "a\n\nb", "x" * 300])
@pytest.mark.parametrize("template", [*TEMPLATES.values(), None], ids=[*TEMPLATES, "plain"])
def test_any_words_survive(template: str | None, words: str) -> None:
    turns = [{"role": "user", "content": words}, {"role": "assistant", "content": words}]
    ((text,),) = learnt(template, turns)
    assert text in (words + "<|im_end|>", " " + words + "<|im_end|>")


def test_a_dialogue_may_begin_with_the_assistant() -> None:
    turns = [{"role": "assistant", "content": "Hello."}, *TURNS[1:3]]
    ((first, second),) = learnt(CHAT_TEMPLATE, turns)
    assert first.endswith("Hello.<|im_end|>")
    assert second == "First.<|im_end|>"


def test_a_system_prompt_of_the_template_s_own_is_not_learnt() -> None:
    template = "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}" + CHAT_TEMPLATE
    turns = [{"role": "assistant", "content": "Welcome."}, *TURNS[1:3]]
    assert learnt(template, turns) == [["Welcome.<|im_end|>", "First.<|im_end|>"]]


def test_a_refusal_of_the_template_names_the_row() -> None:
    tokenizer = build_tokenizer([], chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(TrainingProblem, match=r"row 1: .*user assistant.*roles must alternate") as caught:
        encode_records([{"messages": TURNS[1:3]}], tokenizer, loss_on="assistant", max_length=99)
    assert caught.value.code == "bad_data"


def test_turn_end() -> None:
    assert turn_end(build_tokenizer([], chat_template=CHAT_TEMPLATE)) == "<|im_end|>"


ASKING_TO_THINK = (  # as DeepSeek-R1's: the prompt opens a thought that no rendered answer has
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1].strip() + '<|im_end|>' }}"
    "{% else %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


@pytest.mark.parametrize("answer", ["four", "<thinker>"])
def test_the_turn_s_header_is_not_learned(answer: str) -> None:
    turns = [TURNS[1], {"role": "assistant", "content": answer}]
    assert learnt(ASKING_TO_THINK, turns) == [[answer + "<|im_end|>"]]
    (sample,) = Renderer(build_tokenizer([], chat_template=ASKING_TO_THINK), loss_on="assistant").render(turns)
    assert sample.unasked.endswith("k>\n")


@pytest.mark.parametrize("after", ["<|im_end|>\n", "\n<|im_end|>\n", "\n"])
def test_marks_that_stop_before_the_end(after: str) -> None:
    template = SHORT_MARKS.replace("{{ '<|im_end|>' }}{{ '\n' }}", f"{{{{ {after!r} }}}}")
    (first, second), *_ = learnt(template, TURNS)
    assert first == ("First." + after.rstrip() if "<" in after else "First.")
    assert second == "Second." + (after.rstrip() if "<" in after else after + "<|im_end|>")


def test_marks_that_go_on_after_the_end() -> None:
    template = MARKED_CHAT_TEMPLATE.replace("{% endgeneration %}{{ '\n' }}", "{{ '\n' }}{% endgeneration %}")
    assert template != MARKED_CHAT_TEMPLATE
    assert learnt(template, TURNS) == [["First.<|im_end|>", "Second.<|im_end|>"]]


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Perth"}'}}
TOOL_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools[0]['function']['name'] + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message.get('tool_calls', []) %}"
    "{{ call['function']['name'] + ':' + call['function']['arguments']['city'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_that_knows_of_tools_is_given_them() -> None:
    tokenizer = build_tokenizer([], chat_template=TOOL_TEMPLATE)
    turns = [TURNS[1], {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    (sample,) = Renderer(tokenizer, loss_on="assistant").render(turns, [TOOL])
    assert sample.text.startswith("<|im_start|>system\nweather<|im_end|>\n")
    ((begin, end),) = sample.spans or ()
    assert sample.text[begin:end] == "weather:Perth<|im_end|>"
