"""From a file to every provider's format with one command each, held against the format's own types and rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from cloudtune.cli.main import cli
from cloudtune.data.dataset import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = Path(__file__).parents[1] / "data"
MAPPED = ("--map", "pregunta=prompt", "--map", "respuesta=completion")
FILES: dict[str, tuple[tuple[str, ...], list[tuple[str, str]]]] = {
    "bucket_s3.json": ((), [("¿Cómo creo un bucket S3?", "Para crear un bucket S3: 1) ...")]),
    "resenas.jsonl": ((), [("Reseña: La duración de la batería es terrible.", "Calificación: 2 estrellas")]),
    "suscripcion.json": ((), [(
        'Crear una suscripción mensual de $99\n\n{"customer_id":"cus_123","price":99}',
        '{"api_call":"stripe.subscriptions.create","parameters":{"customer":"cus_123"}}',
    )]),
    "preguntas.csv": (MAPPED, [("¿Cuál es la capital del Perú?", "Lima"),
                               ('¿Qué dijo, "exactamente"?', 'Dijo: "sí, claro"')]),
}  # fmt: skip
"""File -> options, and what is asked and answered in it."""
Pairs = list[tuple[str, str]]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def said(turns: list[dict[str, Any]]) -> tuple[str, str]:
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert all(set(turn) == {"role", "content"} for turn in turns)
    return turns[0]["content"], turns[1]["content"]


def openai(path: Path) -> Pairs:
    """The SDK's own message types, and the checks of the emulated service."""
    types = pytest.importorskip("openai.types.chat")
    from pydantic import TypeAdapter

    from cloudtune_emulator import rowcheck

    messages = TypeAdapter(list[types.ChatCompletionMessageParam])
    for row in rows_of(path):
        assert set(row) == {"messages"}
        assert messages.dump_python(messages.validate_python(row["messages"])) == row["messages"]
    counted = rowcheck.check(path, "supervised", "training_file")
    few = counted.error is None or "at least 10" in counted.error["message"]
    assert few, counted.error
    return [said(row["messages"]) for row in rows_of(path)]


def azure(path: Path) -> Pairs:
    """The same behind a byte order mark."""
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    path.write_bytes(data[3:])
    return openai(path)


def converse(path: Path) -> Pairs:
    """The shapes of Bedrock's Converse API, as botocore has them."""
    session = pytest.importorskip("botocore.session").get_session()
    from botocore.validate import ParamValidator

    shape = session.get_service_model("bedrock-runtime").operation_model("Converse").input_shape
    found = []
    for row in rows_of(path):
        assert row.pop("schemaVersion") == "bedrock-conversation-2024"
        report = ParamValidator().validate({"modelId": "m", **row}, shape)
        assert not report.has_errors(), report.generate_report()
        found.append(said([{**turn, "content": turn["content"][0]["text"]} for turn in row["messages"]]))
    return found


def keyed(*keys: str) -> Callable[[Path], Pairs]:
    def check(path: Path) -> Pairs:
        rows = rows_of(path)
        assert all(list(row) == list(keys) for row in rows)
        return [(row[keys[0]], row[keys[-1]]) for row in rows]

    return check


def templated(path: Path) -> Pairs:
    """JumpStart fills the template that lies beside the rows."""
    template = json.loads((path.parent / "template.json").read_text(encoding="utf-8"))
    rows = keyed("instruction", "context", "response")
    assert rows(path)
    return [(template["prompt"].format(**row), template["completion"].format(**row)) for row in rows_of(path)]


def local(path: Path) -> Pairs:
    """What the trainer reads."""
    from cloudtune_trainer.records import read_records

    return [said(record["messages"]) for record in read_records(path)]


def turns_under(key: str) -> Callable[[Path], Pairs]:
    def check(path: Path) -> Pairs:
        assert all(set(row) == {key} for row in rows_of(path))
        return [said(row[key]) for row in rows_of(path)]

    return check


FORMATS: dict[str, Callable[[Path], Pairs]] = {
    "cloudtune": local, "openai": openai, "azure-openai": azure, "bedrock-converse": converse,
    "bedrock-prompt": keyed("prompt", "completion"), "sagemaker-messages": turns_under("messages"),
    "sagemaker-prompt": keyed("prompt", "completion"), "jumpstart-chat": turns_under("dialog"),
    "jumpstart-instruction": templated, "claude": turns_under("messages"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", FILES)
def test_every_sample_goes_to_every_format_with_one_command(name: str, form: str, tmp_path: Path) -> None:
    options, pairs = FILES[name]
    out = tmp_path / "out.jsonl"
    result = CliRunner().invoke(
        cli, ["data", "convert", str(SAMPLES / name), "--to", form, "-o", str(out), *options, "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["ok"] is True
    assert report["out_bytes"] == out.stat().st_size
    # And it is read back as what it was.
    columns = dict(pair.split("=") for pair in options[1::2])
    assert list(Dataset.read(out)) == list(Dataset.read(SAMPLES / name, columns=columns))
    assert FORMATS[form](out) == pairs


def test_columns_in_another_language_are_not_guessed_but_a_command_is_named() -> None:
    result = CliRunner().invoke(cli, ["data", "check", str(SAMPLES / "preguntas.csv")])
    assert result.exit_code == 2
    assert "--map pregunta=prompt --map respuesta=completion" in result.output
