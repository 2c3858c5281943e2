"""What a chat template leaves out of a row is reported: by the trainer and by ``data check``, in the same words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.data.report import check
from cloudtune_trainer.content_loss import CONTEXT, LEARNED, SPACES, UNASKED
from cloudtune_trainer.samples import encode_records
from cloudtune_trainer.tasks.pairs import encode_pairs
from cloudtune_trainer.tiny import CHAT_TEMPLATE, MARKED_CHAT_TEMPLATE, build_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def template(answer: str, *, other: str = "m.content", prompt: str = "", before: str = "") -> str:
    """ChatML, with other expressions for the text of an answer and for that of other messages."""
    return (
        before + "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        f"{{{{ {answer} }}}}{{% else %}}{{{{ {other} }}}}{{% endif %}}{{{{ '<|im_end|>\n' }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\n{prompt}' }}}}{{% endif %}}"
    )


def says(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


THOUGHT = "<think>\nI add.\n</think>\n\nfour"
ASKED = says("user", "one?")
CALL = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Perth \\"x\\""}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
REASONED = [ASKED, says("assistant", "four", reasoning_content="I add.")]
CALLED = [ASKED, says("assistant", "Wait.", tool_calls=[CALL])]
TWICE = [ASKED, says("assistant", THOUGHT), ASKED, says("assistant", THOUGHT)]
LAST_THOUGHT = "m.content if loop.last else m.content.split('</think>')[-1]"
WITH_CALLS = "m.content + (m.tool_calls | tojson if m.tool_calls else '')"
ONLY_NAMES = "m.content + (m.tool_calls[0].function.name if m.tool_calls else '')"
NO_THOUGHT = "m.content.split('</think>')[-1]"
MARKED_FORGETFUL = MARKED_CHAT_TEMPLATE.replace("message['content'] + '<|im_end|>'", (
    "(message['content'] if loop.last else message['content'].split('</think>')[-1]) + '<|im_end|>'"
))  # fmt: skip
CASES: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, Any]] | None, set[str]]] = {
    "nothing": (CHAT_TEMPLATE, [says("system", "Be."), ASKED, says("assistant", THOUGHT)], None, set()),
    "a thought": (template(NO_THOUGHT), [ASKED, says("assistant", THOUGHT)], None, {LEARNED}),
    "earlier thoughts, each turn by itself": (template(LAST_THOUGHT), TWICE, None, set()),
    "earlier thoughts, with marks": (MARKED_FORGETFUL, TWICE, None, set()),
    "a thought that is not learned": (
        template(NO_THOUGHT), [*TWICE[:1], TWICE[1] | {"weight": 0}, ASKED, says("assistant", "x")], None, set()
    ),
    "reasoning_content": (CHAT_TEMPLATE, REASONED, None, {LEARNED}),
    "reasoning_content that is shown": (
        template("'<think>' + (m.reasoning_content or '') + '</think>' + m.content"),
        REASONED, None, set(),
    ),
    "a changed answer": (template("m.content | upper"), [ASKED, says("assistant", "four")], None, {LEARNED}),
    "an answer cut": (template("m.content[:5]"), [ASKED, says("assistant", "four and more")], None, {LEARNED}),
    "a call": (CHAT_TEMPLATE, CALLED, None, {LEARNED}),
    "a call that is shown": (template(WITH_CALLS), CALLED, None, set()),
    "the arguments of a call": (template(ONLY_NAMES), CALLED, None, {LEARNED}),
    "tools": (template(WITH_CALLS), [ASKED, says("assistant", "four")], [TOOL], {CONTEXT}),
    "tools that are shown": (
        template("m.content", before="{{ tools | tojson }}"), [ASKED, says("assistant", "x")], [TOOL], set()
    ),
    "a system message": (
        template("m.content", other="m.content if m.role == 'user' else ''"),
        [says("system", "Be brief."), ASKED, says("assistant", "four")], None, {CONTEXT},
    ),
    "a system message in the user's": (
        "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set messages = messages[1:] %}"
        "{% endif %}" + template("m.content", other="(s + '\n\n' if s and loop.first else '') + m.content"),
        [says("system", "Be brief."), ASKED, says("assistant", "four")], None, set(),
    ),
    "a tool's result": (
        template(WITH_CALLS, other="m.content if m.role == 'user' else ''"),
        [*CALLED, says("tool", "sunny", tool_call_id="c"), says("assistant", "four")], None, {CONTEXT},
    ),
    "white space": (template("m.content | trim"), [ASKED, says("assistant", " four\n")], None, {SPACES}),
    "a thought that is asked for": (
        template("m.content", prompt="<think>"), [ASKED, says("assistant", "four")], None, {UNASKED}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_a_template_leaves_out_is_reported(case: str, tmp_path: Path) -> None:
    source, messages, tools, kinds = CASES[case]
    tokenizer = build_tokenizer([], chat_template=source)
    row = {"messages": messages} | ({"tools": tools} if tools else {})
    good = {"messages": [ASKED, says("assistant", "<think>" if UNASKED in kinds else "4")]}
    samples = encode_records([good, row], tokenizer, loss_on="assistant", max_length=1000)
    assert {kind: rows for kind, rows in samples.cuts.unshown.items() if rows != [1]} == {kind: [2] for kind in kinds}

    tokenizer.save_pretrained(tmp_path / "model")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in (good, row)))
    report = check(str(file), target="local", model=str(tmp_path / "model"), workers=0)
    found = [problem for problem in report.problems if problem.code == "template"]
    assert {problem.line for problem in found} == ({2} if kinds else set())
    said = [f"{kind}: {samples.cuts.unshown_texts[kind]}" for kind in samples.cuts.unshown]
    assert sorted({problem.message for problem in found}) == sorted(said)


def test_what_a_template_leaves_out_of_a_pair_is_reported(tmp_path: Path) -> None:
    tokenizer = build_tokenizer([], chat_template=template(NO_THOUGHT))
    pair = {"messages": [ASKED], "chosen": [says("assistant", "four")], "rejected": [says("assistant", THOUGHT)]}
    pairs = encode_pairs([pair | {"rejected": [says("assistant", "no")]}, pair], tokenizer, loss_on="assistant",
                         max_length=1000)  # fmt: skip
    assert pairs.cuts.unshown == {LEARNED: [2]}
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text(json.dumps(pair) + "\n")
    report = check(str(tmp_path / "rows.jsonl"), target="local", model=str(tmp_path / "model"), workers=0)
    assert [problem.line for problem in report.problems if problem.code == "template"] == [1]


@pytest.mark.parametrize("marks", [True, False])
def test_a_refusal_of_the_template_is_reported_with_its_row(marks: bool, tmp_path: Path) -> None:
    source = (MARKED_CHAT_TEMPLATE if marks else CHAT_TEMPLATE) + (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    )
    tokenizer = build_tokenizer([], chat_template=source)
    rows = [{"messages": [ASKED, says("assistant", "x")]}]
    rows.append({"messages": [says("system", "Be."), *rows[0]["messages"]]})
    with pytest.raises(Exception, match="row 2: the chat template rejects the roles system user assistant: no system"):
        encode_records(rows, tokenizer, loss_on="assistant", max_length=1000)
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check(str(tmp_path / "rows.jsonl"), target="local", model=str(tmp_path / "model"), workers=0)
    assert not report.ok
    (problem,) = [problem for problem in report.problems if problem.code == "template"]
    assert problem.line == 2
    assert "rejects the roles system user assistant: no system role" in problem.message
