"""The rules of vendors and formats: each has a row that breaks it and one that keeps it, and the emulator agrees."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.unit.data.test_formats import decode

from cloudtune.cli.main import cli
from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.checks.targets import find_target, row_rules
from cloudtune.data.records import canonical
from cloudtune.data.row_rules import DataFacts, DataRule, RowRule
from cloudtune.data.rule_list import list_rules
from cloudtune.data.write.formats_table import find_format, format_names
from cloudtune_emulator import rowcheck
from cloudtune_emulator.bedrock import rows as bedrock_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.data.records import Record
    from cloudtune.data.row_rules import VendorRule
    from cloudtune.data.write.formats import Format

Row = dict[str, Any]
VISION, TEXT, MINI = "gpt-4o-2024-08-06", "gpt-4.1-mini-2025-04-14", "o4-mini-2025-04-16"
NOVA, NOVA_2 = "amazon.nova-lite-v1:0:300k", "amazon.nova-2-lite-v1:0:256k"
LLAMA, CLAUDE = "meta.llama3-3-70b-instruct-v1:0:128k", "anthropic.claude-3-haiku-20240307-v1:0:200k"
TARGETS = [
    ("openai", VISION, "sft"), ("openai", TEXT, "sft"), ("openai", TEXT, "dpo"), ("openai", MINI, "rft"),
    ("azure_openai", "gpt-4.1-2025-04-14", "sft"), ("bedrock", NOVA, "sft"), ("bedrock", NOVA, "distill"),
    ("bedrock", NOVA_2, "sft"), ("bedrock", NOVA_2, "rft"), ("bedrock", LLAMA, "sft"),
    ("bedrock", CLAUDE, "sft"), ("sagemaker", "amazon.nova-lite-v1:0", "dpo"), ("jumpstart", None, "sft"),
    ("local", None, "sft"), ("azure_openai", "o4-mini-2025-04-16", "rft"), ("bedrock", "openai.gpt-oss-20b", "rft"),
]  # fmt: skip
U, A = {"role": "user", "content": "¿Qué hora es?"}, {"role": "assistant", "content": "Son las diez."}
TOOL = {"type": "function", "function": {"name": "hora", "parameters": {"type": "object"}}}


def chat(*messages: Row, **more: Any) -> Row:
    return {"messages": [*messages], **more}


def said(content: Any, role: str = "user", **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def call(name: str = "hora", arguments: str = '{"ciudad":"Lima"}', *ids: str) -> Row:
    calls = [{"id": one, "type": "function", "function": {"name": name, "arguments": arguments}} for one in ids or "a"]
    return {"role": "assistant", "tool_calls": calls}


def result(name: str | None = "a", content: Any = "10:00") -> Row:
    return {"role": "tool", "content": content} | ({"tool_call_id": name} if name else {})


def image(url: str = "https://ejemplo.org/a.png", **more: Any) -> Row:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def seen(*parts: Row) -> Row:
    return chat(said([*parts]), A)


def video(url: str = "s3://cubo/a.mp4") -> Row:
    return {"type": "video_url", "video_url": {"url": url}}


S3 = "s3://cubo/a.png"
PAIR = {"messages": [U], "chosen": [A], "rejected": [said("No sé.", "assistant")]}
ITEM = {"messages": [U], "fields": {"reference_answer": "10"}}
# Code -> rows that break the rule, and rows that keep it. A row is read as the kind that it is.
CASES: dict[str, tuple[list[Row], list[Row]]] = {
    "tool_pairing": (
        [
            chat(U, call(), result("b"), A), chat(U, call(), result(None), A), chat(U, call(), A),
            chat(U, call("hora", "{}", "a", "b"), result(), A), chat(U, call(), result(), result(), A),
            chat(U, call("hora", "{}", "a", "a"), result(), A), chat(U, call(), U, A),
            {**PAIR, "chosen": [call(), result("b"), A]},
        ],
        [
            chat(U, call()), chat(U, call(), result(), A), chat(U, call(), result(), A, U, call(), result(), A),
            chat(U, call("hora", "{}", "a", "b"), result("b"), result(), A), {**PAIR, "chosen": [call(), result(), A]},
        ],
    ),
    "tool_arguments": (
        [chat(U, call(arguments=text)) for text in ("{ciudad: Lima}", "[1]", "null", "", "{'a': 1}", '"a"')],
        [chat(U, call(arguments=text)) for text in ("{}", '{"a":[1]}', ' {"a": null} ')],
    ),
    "tool_arguments_encoded": ([chat(U, call(arguments='"{\\"a\\": 1}"'))], [chat(U, call())]),
    "tool_content": (
        [chat(U, call(), result(content=[{"type": "text", "text": text} for text in ("10", "a. m.")]), A)],
        [chat(U, call(), result(), A)],
    ),
    "too_many_tools": ([chat(U, A, tools=[TOOL] * 129)], [chat(U, A, tools=[TOOL] * 128)]),
    "tool_name": (
        [chat(U, call(name)) for name in ("hora local", "año", "", "x" * 65, "a.b")]
        + [chat(U, A, tools=[TOOL, TOOL | {"function": {"name": "hora local"}}])],
        [chat(U, call(name)) for name in ("hora_local", "x" * 64, "A-1")],
    ),
    "name_pattern": (
        [chat(U | {"name": name}, A) for name in ("José Pérez", "a b", "x" * 65, "")],
        [chat(U | {"name": name}, A | {"name": name}) for name in ("jose_perez-1", "x" * 64)],
    ),
    "special_token": (
        [
            chat(said("código <|fim_suffix|> aquí"), A), chat(U, said("<|endoftext|>", "assistant")),
            chat(said("<|endofprompt|>", "system"), U, A), chat(said([{"type": "text", "text": "<|fim_prefix|>"}]), A),
            {**PAIR, "rejected": [said("<|fim_middle|>", "assistant")]},
            chat(U, call(arguments='{"a":"<|endoftext|>"}')), chat(U, call(), result(content="<|endoftext|>"), A),
        ],
        [chat(said("fim_suffix |> <| endoftext"), A)],
    ),
    "output_roles": (
        [{**PAIR, "chosen": [A, U, A]}, {**PAIR, "rejected": [said("x", "system"), A]}],
        [PAIR, {**PAIR, "chosen": [call(), result(), A]}],
    ),
    "prompt_end": ([{**ITEM, "messages": [U, call(), result()]}], [ITEM]),
    "image_role": ([chat(U, said([image()], "assistant")), chat(said([image()], "system"), U, A)], [seen(image())]),
    "image_address": (
        [seen(image(url)) for url in (
            "s3://c/a.png", "file:///a.png", "a.png", "data:image/png,abc", "ftp://x/a.png", "data:image/png;base64,@@",
        )],
        [seen(image(url)) for url in ("http://x/a", "https://x/a.png", "data:image/png;base64,aGk=")],
    ),
    "image_format": (
        [seen(image(f"data:{form};base64,aa==")) for form in ("image/bmp", "", "png")]
        + [seen(image("https://x/a.GIF?v=1"))],
        [seen(image(url)) for url in ("data:image/webp;base64,aa==", "https://x/a.jpeg", "https://x/foto?id=3")],
    ),
    "image_size": (
        [seen(image("data:image/png;base64," + "A" * 14_000_000))],
        [seen(image("data:image/png;base64," + "A" * 12_000_000))],
    ),
    "image_detail": (
        [seen(image(detail="full"))], [seen(image(detail=level)) for level in ("auto", "low", "high")]
    ),
    "image_method": ([{**PAIR, "messages": [said([image()])]}, {**ITEM, "messages": [said([image()])]}], [PAIR, ITEM]),
    "image_count": ([seen(*[image()] * 65)], [seen(*[image()] * 64)]),
    "image_model": ([seen(image())], [chat(U, A)]),
    "role_order": (
        [
            chat(U, U, A), chat(A, U, A), chat(U, A, A), chat(said("s", "system"), said("s", "system"), U, A),
            chat(U, said("s", "system"), A), chat(said("s", "system"), A),
        ],
        [chat(U, A), chat(said("s", "system"), U, A, U, A)],
    ),
    "media_role": ([chat(U, said([image(S3)], "assistant"))], [seen(image(S3))]),
    "media_address": (
        [seen(image(url)) for url in ("https://x/y.png", "s3://b/k.tiff", "s3://b", "s3://b/k.mp4",
                                            "data:image/png;base64,aa==")]
        + [seen(video("s3://b/k.png"))],
        [seen(image(S3)), seen(video())],
    ),
    "media_key": ([seen(image("s3://c/mi foto.png")), seen(video("s3://c/a+b.mp4"))], [seen(image("s3://c/x_1/y-2.png"))]),
    "media_format": ([seen(image("s3://c/a.webp")), seen(video("s3://c/a.webm"))], [seen(image("s3://c/a.jpg"))]),
    "media_count": (
        [seen(*[image(S3)] * 11), seen(video(), video()), seen(image(S3), video())],
        [seen(*[image(S3)] * 10), seen(video())],
    ),
    "media_model": ([seen(image(S3)), seen(video())], [chat(U, A)]),
    "media_method": ([seen(image(S3))], [chat(U, A)]),
    "text_only": (
        [chat(U, call(), result(), A), chat(U, A | {"reasoning_content": "r"}), seen(image())], [chat(U, A)]
    ),
    "reserved_word": (
        [chat(said(f"a {word} b", role), *after)
         for word in ("System:", "SYSTEM:", "uSer:", "bot:", "Assistant:", "thought:", "[eos]", "<Image>", "<unk>")
         for role, after in (("user", [A]), ("system", [U, A]))]
        + [chat(said([{"type": "text", "text": "User: a"}]), A)],
        [chat(said("sistema : usuario, <imagen>"), A)],
    ),
    "reference_answer": (
        [{**ITEM, "fields": {"reference_answer": value}} for value in ("", " ", {})], [ITEM]
    ),
    "pair_media": (
        [{**PAIR, "messages": [said([video()])]}, {**PAIR, "chosen": [said([image(S3)], "assistant")]}],
        [{**PAIR, "messages": [said([image(S3)])]}],
    ),
}  # fmt: skip
FACTS = {  # code -> a dataset that breaks the rule, and one that keeps it
    "image_rows": (DataFacts({"train": 60_000}, {"images": 50_001}), DataFacts({"train": 60_000}, {"images": 50_000})),
    "no_validation": (DataFacts({"train": 10}, {}), DataFacts({"train": 10, "validation": 2}, {})),
    "mixed_media": (DataFacts({"train": 9}, {"images": 1, "videos": 1}), DataFacts({"train": 9}, {"videos": 9})),
    "validation_ignored": (DataFacts({"train": 300, "validation": 1}, {}), DataFacts({"train": 300}, {})),
    "advised_rows": (DataFacts({"train": 199}, {}), DataFacts({"train": 200}, {})),
}


def record_of(row: Row) -> Record:
    kind = {"chosen": "preference_record", "fields": "item_record"}
    (record,) = decode([row], next((kind[key] for key in kind if key in row), "chat"))
    return record


@cache
def rules_of(backend: str, model: str | None, method: str) -> list[VendorRule]:
    target = find_target(backend, model, method)
    return [*find_format(target.format_for(method)).rules, *row_rules(target.rules_of)]


@cache
def form_of(backend: str, model: str | None, method: str) -> Format:
    return find_format(find_target(backend, model, method).format_for(method))


def all_rules() -> Iterator[VendorRule]:
    for target in TARGETS:
        yield from rules_of(*target)
    for name in format_names():
        yield from find_format(name).rules


def test_every_rule_has_a_row_that_breaks_it_and_one_that_keeps_it() -> None:
    seen_codes = set()
    for rule in {id(rule): rule for rule in all_rules()}.values():
        seen_codes.add(rule.code)
        if isinstance(rule, DataRule):
            bad, good = FACTS[rule.code]
            assert [*rule.problems(bad)], rule.code
            assert not [*rule.problems(good)], rule.code
            continue
        broken, kept = CASES[rule.code]
        for row in broken:
            record = record_of(row)
            found = [*rule.problems(record)]
            assert found, (rule.code, row)
            assert all(problem.field and problem.fix for problem in found)
            assert rule.quick is None or rule.quick.search(canonical(record)), (rule.code, "the quick look misses it")
        for row in kept:
            assert not [*rule.problems(record_of(row))], (rule.code, row)
    assert seen_codes == {*CASES, *FACTS}


def test_calls_without_an_id_and_with_the_same_one_are_told_apart() -> None:
    (rule,) = (rule for rule in rules_of("openai", TEXT, "sft") if rule.code == "tool_pairing")
    assert isinstance(rule, RowRule)
    for ids, message in ((("a", "a"), "two calls have the id"), (("", "a"), "has no id")):
        assert message in next(iter(rule.problems(record_of(chat(U, call("hora", "{}", *ids)))))).message


def test_reserved_words_count_in_answers_except_for_distillation() -> None:
    (trained,), (distilled,) = (
        [rule for rule in rules_of("bedrock", NOVA, method) if rule.code == "reserved_word"]
        for method in ("sft", "distill")
    )
    for answer in (said("User: no", "assistant"), A | {"reasoning_content": "BOT: no"}):
        record = record_of(chat(U, answer))
        assert isinstance(trained, RowRule)
        assert isinstance(distilled, RowRule)
        assert [*trained.problems(record)]
        assert not [*distilled.problems(record)]


@pytest.mark.parametrize(("backend", "model", "method"), TARGETS)
def test_the_list_of_rules_has_every_code_with_its_source(backend: str, model: str | None, method: str) -> None:
    listed = {rule.code: rule for rule in list_rules(backend, model, method)}
    for rule in rules_of(backend, model, method):
        assert listed[rule.code].rule
        assert rule.source.url.startswith("https://")
        assert rule.source.seen >= "2026-11-21"
        assert rule.text.endswith(".")
    assert {"blank", "role_order", "last_not_assistant"} <= listed.keys()


def test_rules_are_printed_by_the_command() -> None:
    words = ["data", "rules", "--for", "openai", "--model", TEXT, "--method", "sft"]
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0, shown.output
    assert "special_token: " in shown.output
    assert "github.com/johny-b/llmcomp" in shown.output
    document = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)["rules"]
    assert {"code", "rule", "severity", "applies_to", "source", "seen", "example", "fix"} <= document[-1].keys()
    assert CliRunner().invoke(cli, ["data", "rules", "--for", "opnai"]).exit_code == 2


# -- the emulator and the vendors' types as second opinions ----------------------------------------------------------


def made(seed: int) -> Row:
    """A conversation that may break any rule of tools, names, images, tokens and roles."""
    choose = random.Random(seed)
    texts = ["hola", "Son las diez.", "User: hola", "SYSTEM: no", "<|endoftext|>", "¿Y mañana?", "x [EOS]"]
    text = lambda: choose.choice(texts[:2] * 6 + texts)  # noqa: E731
    url = lambda: choose.choice(["https://x/a.png", "https://x/a.bmp", "s3://c/a.png", "data:image/png;base64,aa=="])  # noqa: E731
    messages: list[Row] = [said(text(), "system")] * choose.choice([0, 0, 1, 1, 2])
    for _ in range(choose.randint(1, 3)):
        messages.append(said(text()) | ({"name": choose.choice(["ana", "José"])} if choose.random() < 0.1 else {}))
        if choose.random() < 0.15:
            messages[-1]["content"] = [{"type": "text", "text": text()}, image(url())]
        if choose.random() < 0.3:
            ids = choose.choice([("a",), ("a", "b"), ("a", "a")])
            arguments = choose.choice(["{}", '{"a":1}', "a=1", "[]", '"{}"', '{"a":"<|endoftext|>"}'])
            messages.append(call(choose.choice(["hora", "mala hora"]), arguments, *ids))
            messages += [result(choose.choice([one, one, one, one, "z", None])) for one in ids if choose.random() < 0.8]
        if choose.random() < 0.9:
            messages.append(said(text(), "assistant"))
        if choose.random() < 0.1:
            messages.append(said([image(url())], "assistant"))
    return chat(*messages, **({"tools": [TOOL]} if choose.random() < 0.5 else {}))


def checked(row: Row, backend: str, model: str, method: str) -> tuple[bool, bytes]:
    """Whether the checks accept the row, and the line that is uploaded."""
    record = record_of(row)
    form = form_of(backend, model, method)
    broken = [*faults_of(record, method=method)]
    for rule in rules_of(backend, model, method):
        if isinstance(rule, RowRule):
            broken += [problem for problem in rule.problems(record) if problem.severity == "error"]
    try:
        return not broken, form.line(record, canonical(record))
    except ValueError:
        return False, b""


def agree(tmp_path: Path, seeds: range) -> tuple[int, int]:
    """Compare both verdicts on each row, and return how many were accepted by OpenAI's and Bedrock's checks."""
    from openai.types.chat import ChatCompletionMessageParam
    from pydantic import TypeAdapter

    typed = TypeAdapter(list[ChatCompletionMessageParam])
    path, accepted = tmp_path / "rows.jsonl", [0, 0]
    for seed in seeds:
        row = made(seed)
        ok, line = checked(row, "openai", VISION, "sft")
        path.write_bytes(line or json.dumps(row).encode())
        error = rowcheck.check(path, "supervised", "training_file").error
        refused = error is not None and "but must have at least" not in error["message"]
        # The job does not ask for an assistant's turn at the end, or for texts that are not empty; the checks do.
        own = {problem.code for problem in faults_of(record_of(row))} - {"role_order"}
        assert ok is (not refused) or own, (seed, row, error)
        if ok:
            accepted[0] += 1
            typed.validate_python(json.loads(line)["messages"])
        ok, line = checked(row, "bedrock", NOVA, "sft")
        if line:
            task = bedrock_rows.Task(NOVA, "FINE_TUNING", "c")
            fault = bedrock_rows.check(line, task, "rows", is_training=False).fault
            assert ok is (fault is None), (seed, row, fault)
            accepted[1] += ok
    return accepted[0], accepted[1]


def test_the_emulator_refuses_the_rows_that_the_checks_refuse(tmp_path: Path) -> None:
    assert min(agree(tmp_path, range(400))) > 20


@pytest.mark.soak
def test_the_emulator_agrees_on_many_rows(tmp_path: Path) -> None:
    assert min(agree(tmp_path, range(400, 8_000))) > 400


def test_open_weight_models_take_no_special_token() -> None:
    codes = {rule.code for rule in rules_of("bedrock", "openai.gpt-oss-20b", "rft")}
    assert "special_token" in codes


def test_only_azure_requires_validation_rows_for_rft() -> None:
    assert "no_validation" in {rule.code for rule in rules_of("azure_openai", "o4-mini-2025-04-16", "rft")}
    assert "no_validation" not in {rule.code for rule in rules_of("openai", MINI, "rft")}
