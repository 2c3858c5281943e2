"""Rows in the shapes of vendors' published training files, in our own words: none of them is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.data.test_formats import decode

from cloudtune.data.records import canonical, kind_of
from cloudtune.data.report import check
from cloudtune.data.write.formats import LossError
from cloudtune.data.write.formats_table import find_format, format_names

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
NOVA, NOVA_2 = "amazon.nova-lite-v1:0:300k", "amazon.nova-2-lite-v1:0:256k"
TOOL = {"type": "function", "function": {"name": "despegar", "description": "Eleva el dron.", "parameters": {
    "type": "object", "properties": {"altura": {"type": "integer"}}, "required": ["altura"]}}}  # fmt: skip


def called(arguments: str) -> Row:
    call = {"id": "call_id", "type": "function", "function": {"name": "despegar", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call]}


def turns(*pairs: tuple[str, Any]) -> list[Row]:
    return [{"role": role, "content": content} for role, content in pairs]


def blocks(*pairs: tuple[str, str]) -> list[Row]:
    return [{"role": role, "content": [{"text": text}]} for role, text in pairs]


IMAGE = [{"type": "image_url", "image_url": {"url": "https://ejemplo.org/obra.jpg", "detail": "low"}}]
# Where the shape is published -> back end, model, method, and rows of that shape.
SAMPLES: dict[str, tuple[str, str | None, str, list[Row]]] = {
    "openai-cookbook toy_chat_fine_tuning: the assistant speaks first": (
        "openai", "gpt-4.1-mini-2025-04-14", "sft",
        [{"messages": turns(("system", "Eres alegre."), ("assistant", "¡Qué bien!"))},
         {"messages": turns(("user", "Perdí."), ("assistant", "Ganarás."), ("user", "¿Sí?"), ("assistant", "Sí."))}],
    ),
    "openai-cookbook drone_training: calls at the end, one encoded twice": (
        "openai", "gpt-4.1-mini-2025-04-14", "sft",
        [{"messages": [*turns(("user", "Sube")), called(text)], "parallel_tool_calls": False, "tools": [TOOL]}
         for text in ('{"altura": 100}', json.dumps('{"altura": 9}'))],
    ),
    "OpenAI's vision guide: two user turns": (
        "openai", "gpt-4o-2024-08-06", "sft",
        [{"messages": turns(("system", "Describes."), ("user", "¿Qué es?"), ("user", IMAGE), ("assistant", "Lago."))}],
    ),
    "Microsoft's vision guide": (
        "azure_openai", "gpt-4.1-2025-04-14", "sft",
        [{"messages": turns(("user", "¿Qué es?"), ("user", IMAGE), ("assistant", "Un lago."))}],
    ),
    "Microsoft's guide to tool calling: a result, and no declared tools": (
        "azure_openai", "gpt-4.1-2025-04-14", "sft",
        [{"messages": [*turns(("user", "Sube")), called("{}"),
                       {"role": "tool", "tool_call_id": "call_id", "content": "100.0"}, *turns(("assistant", "Ya."))],
          "tools": []}],
    ),
    "microsoft-foundry DPO_Intel_Orca": (
        "azure_openai", "gpt-4.1-2025-04-14", "dpo",
        [{"input": {"messages": turns(("system", "Ayudas."), ("user", "¿2+2?"))},
          "preferred_output": turns(("assistant", "4")), "non_preferred_output": turns(("assistant", "5"))}],
    ),
    "microsoft-foundry RFT_ToolCall: developer turns, tools beside the answer": (
        "azure_openai", "o4-mini-2025-04-16", "rft",
        [{"messages": turns(("developer", "Usa la herramienta."), ("user", "Sube a 9")), "tools": [TOOL],
          "reference_answer": "9"}],
    ),
    "amazon-nova-samples SFT: Converse without schemaVersion": (
        "bedrock", NOVA_2, "sft",
        [{"messages": blocks(("user", "¿Ley 5?"), ("assistant", '{"Tipo": "ley"}')), "system": [{"text": "Juez."}]}],
    ),
    "Bedrock's guide to Nova 2: reasoning": (
        "bedrock", NOVA_2, "sft",
        [{"schemaVersion": "bedrock-conversation-2024", "messages": [
            *blocks(("user", "¿Capital?")), {"role": "assistant", "content": [
                {"reasoningContent": {"reasoningText": {"text": "Es Perú."}}}, {"text": "Lima."}]}]}],
    ),
    "amazon-nova-samples RFT: an object as the answer": (
        "bedrock", NOVA_2, "rft",
        [{"id": "7", "messages": turns(("user", "¿Ley 5?")), "reference_answer": {"Tipo": "ley", "Pasos": [{"a": 1}]}}],
    ),
    "amazon-bedrock-samples model_distillation: reserved words in answers": (
        "bedrock", NOVA, "distill",
        [{"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Respondes."}],
          "messages": blocks(("user", "¿Riesgos?"), ("assistant", "Del sistema: System: ninguno."))}],
    ),
    "Bedrock's guide: Llama 3.1": (
        "bedrock", "meta.llama3-1-8b-instruct-v1:0:128k", "sft", [{"prompt": "¿Capital?", "completion": "Lima."}],
    ),
    "JumpStart's guide: dialogs": (
        "jumpstart", None, "sft",
        [{"dialog": turns(("system", "Ayudas."), ("user", "¿Hora?"), ("assistant", "Las diez."))}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_a_vendors_own_shape_is_accepted(name: str, tmp_path: Path) -> None:
    backend, model, method, rows = SAMPLES[name]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows * 200), encoding="utf-8")
    report = check(str(path), target=backend, model=model, method=method, workers=0)
    assert report.ok, [problem for problem in report.problems if problem.severity == "error"][:3]
    assert report.rows == 200 * len(rows)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_vendors_own_shape_goes_to_every_format_or_its_loss_is_named(name: str) -> None:
    for row in SAMPLES[name][3]:
        (record,) = decode([row])
        for form in map(find_format, format_names()):
            if form.kinds and kind_of(record) not in form.kinds:
                continue
            reason = ""
            try:
                json.loads(form.line(record, canonical(record)))
            except LossError as error:
                reason = f"loss: {', '.join(error.lost)}"
            except ValueError as error:
                reason = str(error)
            assert not reason or reason.partition(": ")[2], (form.name, "the reason names the field or the features")
