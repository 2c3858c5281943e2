"""Rows filtered, sampled, cleaned, shuffled and made by templates on their way, from the command line and in specs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune.cli.main import cli
from cloudtune.data.checks.preparing import prepare
from cloudtune.data.dataset import Dataset
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.reading import read
from cloudtune.data.read.templating import parse
from cloudtune.data.records import Chat, Labelled, Message, Preference
from cloudtune.data.transform.filtering import condition
from cloudtune.data.transform.shaping import Piles
from cloudtune.document.specfile import load_spec
from cloudtune.errors import DataError, SpecError
from cloudtune.spec import Data, Source


def run(*words: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["data", *words, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"question {i}", "completion": f"answer\u00a0 {i % 7}, write to me{i}@example.org"}
             for i in range(300)]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def chat(question: str, answer: str) -> Chat:
    return Chat([Message("system", "be brief"), Message("user", question), Message("assistant", answer)])


@pytest.mark.parametrize(("written", "holds"), [
    ("chars<=18", True), ("chars<18", False), ("chars>=18", True), ("chars=18", True), ("chars!=18", False),
    ("turns=3", True), ("turns>3", False), ("answer=blue sky", True), ("answer!=blue sky", False),
    ("answer~^blue", True), ("answer!~^blue", False), ("question~h", True), ("system= be brief", True),
    ("label=blue sky", True), ("text~brief.*\nhm", True), ("text ~ nowhere", False),
])  # fmt: skip
def test_conditions(written: str, holds: bool) -> None:
    assert condition(written)(chat("hm", "blue sky")) is holds


def test_conditions_on_other_kinds() -> None:
    pair = Preference([Message("user", "q")], [Message("assistant", "good")], [Message("assistant", "bad")])
    assert condition("answer=good")(pair)
    assert condition("label=3")(Labelled("t", 3))
    assert not condition("question~.")(Labelled("t", 3))


@pytest.mark.parametrize("bad", ["chars", "chars~3", "chars<x", "length<3", "answer<3", "answer~[", ""])
def test_conditions_that_make_no_sense(bad: str) -> None:
    with pytest.raises(DataError) as refused:
        condition(bad)
    (problem,) = refused.value.problems
    assert (problem.code, problem.field) == ("filter", "filter")
    assert "chars<=4000" in str(problem.fix)


def test_convert_filters_samples_and_cleans_and_keeps_places(rows: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    found = run("convert", rows, "--to", "prompt-completion", "-o", str(out), "--filter", "answer~^answer. 3,",
                "--normalise", "--redact")  # fmt: skip
    assert found["rows"] == len(written(out)) == 43
    assert {row["completion"] for row in written(out)} == {"answer 3, write to [EMAIL]"}
    half = run("convert", rows, "--to", "openai", "-o", str(out), "--sample", "0.5")
    assert 110 < half["rows"] < 190
    assert run("convert", rows, "--to", "openai", "-o", str(out), "--sample", "0.5")["out_sha256"] == half["out_sha256"]
    other = run("convert", rows, "--to", "openai", "-o", str(out), "--sample", "0.5", "--seed", "1")
    assert other["out_sha256"] != half["out_sha256"]
    # What is wrong with a row that stays is told with its place in the file; what is left out does not matter.
    bad = Path(rows)
    bad.write_text(bad.read_text() + '{"prompt":"zz","completion":" "}\n', encoding="utf-8")
    problems = run("check", rows, "--filter", "question~zz", code=2)
    assert [(p["code"], p["line"]) for p in problems["problems"] if p["severity"] == "error"] == [("blank", 301)]
    assert run("check", rows, "--filter", "question!~zz")["rows"] == 300


def test_convert_shuffles(rows: str, tmp_path: Path) -> None:
    plain, mixed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    run("convert", rows, "--to", "azure-openai", "-o", str(plain))
    found = run("convert", rows, "--to", "azure-openai", "-o", str(mixed), "--shuffle")
    bom = b"\xef\xbb\xbf"
    assert mixed.read_bytes().startswith(bom)
    before, after = (path.read_bytes().removeprefix(bom).splitlines() for path in (plain, mixed))
    assert before != after
    assert sorted(before) == sorted(after)
    assert found["out_sha256"] == hashlib.sha256(mixed.read_bytes()).hexdigest()
    assert found["out_bytes"] == len(mixed.read_bytes())
    run("convert", rows, "--to", "azure-openai", "-o", str(plain), "--shuffle")
    assert plain.read_bytes() == mixed.read_bytes()


def test_piles_on_disk_lose_nothing() -> None:
    piles = Piles(3, memory=1000)
    lines = [b"line %d" % i for i in range(5000)]
    for line in lines:
        piles.add(line)
    dealt = list(piles.dealt())
    assert sorted(dealt) == sorted(lines)
    assert sum(abs(int(one[5:]) - i) for i, one in enumerate(dealt)) / 5000 > 1000  # a third of them, on average


def test_every_command_takes_changes(rows: str, tmp_path: Path) -> None:
    keep = ("--filter", "question~[05]$")
    assert run("check", rows, *keep)["rows"] == 60
    assert run("stats", rows, *keep)["rows"] == 60
    assert run("profile", rows, *keep, "-o", str(tmp_path / "p.html"))["rows"] == 60
    assert run("dedupe", rows, *keep, "--shuffle", "-o", str(tmp_path / "d.jsonl"))["files"]["out"]["rows"] == 60
    balanced = run("balance", rows, *keep, "--most", "1", "-o", str(tmp_path / "b.jsonl"))
    assert balanced["files"]["out"]["rows"] == 60
    sides = run("split", rows, *keep, "--shuffle", "-o", str(tmp_path / "s"))["files"]
    assert sides["train"]["rows"] + sides["validation"]["rows"] == 60
    (shown,) = run("preview", rows, *keep, "--row", "2", "-n", "1", "--normalise")["rows"]
    assert shown["place"] == f"{rows}:6"
    assert "answer 5" in "".join(piece["text"] for piece in shown["pieces"])


def test_stats_of_train_validation_and_test(rows: str, tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text('{"prompt":"question 1","completion":"answer\u00a0 1, write to me1@example.org"}\n' * 2, "utf-8")
    found = run("stats", rows, "--validation", "0.2", "--test", str(test))
    sides = found["splits"]
    assert set(sides) == {"train", "validation", "test"}
    assert sides["train"]["rows"] + sides["validation"]["rows"] == 300
    assert sides["test"]["rows"] == 2
    assert found["leaks"] == 2
    for side in sides.values():
        assert sum(count for _, count in side["sizes"]) == side["rows"]
    whole = sum(side["mean_bytes"] * side["rows"] for side in sides.values())
    assert whole == pytest.approx(found["bytes"] - 302, abs=20)  # without line ends
    assert "validation" in CliRunner().invoke(cli, ["data", "stats", rows, "--validation", "0.2"]).stdout


@settings(max_examples=examples(50), deadline=None)
@given(written=st.text(max_size=40) | st.from_regex(r"(chars|turns|text|answer|label)(<|<=|=|!=|~|!~).{0,20}"))
def test_a_condition_is_read_or_refused_and_never_crashes(written: str) -> None:
    try:
        holds = condition(written)
    except DataError:
        return
    assert holds(chat("question", "answer")) in (True, False)


@settings(max_examples=examples(50), deadline=None)
@given(text=st.text("{}:!ab[]. \n", max_size=20), row=st.dictionaries(st.sampled_from("ab "), st.none()))
def test_a_template_is_read_or_refused_and_never_crashes(text: str, row: dict[str, None]) -> None:
    try:
        source = Source.model_validate({"path": "x", "template": text})
    except ValueError:
        return
    assert source.template is not None
    template = parse(source.template["text"])
    if template.columns <= row.keys():
        assert isinstance(template.fill(row), str)


# -- templates -------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "faq.csv"
    path.write_text("pregunta,tema,respuesta\n¿Capital?,geo,Lima\n¿Río?,geo,Amazonas\n", encoding="utf-8")
    return str(path)


def test_templates_make_rows_of_columns(table: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run("convert", table, "--to", "prompt-completion", "-o", str(out), "--template", r"prompt=[{tema}]\n{pregunta}",
        "--template", "completion={respuesta}")  # fmt: skip
    assert written(out) == [{"prompt": "[geo]\n¿Capital?", "completion": "Lima"},
                            {"prompt": "[geo]\n¿Río?", "completion": "Amazonas"}]  # fmt: skip
    run("convert", table, "--to", "cloudtune", "-o", str(out), "--template", "Q: {pregunta} {{A}}: {respuesta}",
        "--method", "cpt")  # fmt: skip
    assert written(out)[0] == {"text": "Q: ¿Capital? {A}: Lima"}
    (tmp_path / "template.json").write_text('{"prompt": "{pregunta}", "completion": "{respuesta}"}')
    run("convert", table, "--to", "openai", "-o", str(out), "--template", f"@{tmp_path}/template.json")
    assert written(out)[1]["messages"][1]["content"] == "Amazonas"


def test_templates_take_nested_values_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a":{"b":[1,2]},"n":null,"x":true,"why":"no"}\n', encoding="utf-8")
    data = Data.model_validate({"train": {"path": str(path), "template": {"prompt": "{a}{n}", "completion": "{why}",
                                                                           "label": "{x}"}}})  # fmt: skip
    (record,) = Dataset.of(data.train, method="kto")
    assert record.messages[0].content == '{"b":[1,2]}'  # type: ignore[union-attr]
    assert record.label is True  # type: ignore[union-attr]


@pytest.mark.parametrize(("template", "messages"), [
    ({"query": "{a}", "response": "{b}"}, ["a", "[1]"]),
    ({"question": "{a}", "chosen": "{b}", "rejected": "{c}"}, ["a"]),
    ({"prompt": "{a}", "completion": "{b}", "history": "{h}"}, ["x", "y", "a", "[1]"]),
    ({"conversations": "{s}"}, ["u", "v"]),
])  # fmt: skip
def test_templates_make_rows_of_every_dialect(template: dict[str, str], messages: list[str], tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "v"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": "a", "b": [1], "c": "c", "h": [["x", "y"]], "s": turns}) + "\n")
    faults = Faults()
    (batch,) = read(Source(path=str(path), template=template), faults)
    assert not faults.total("error")
    assert [message.content for message in batch.records[0].messages] == messages  # type: ignore[attr-defined]


def test_a_bad_row_of_a_template_names_its_field(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"q": "a", "x": label}) + "\n" for label in (True, "good")))
    faults = Faults()
    template = {"prompt": "{q}", "completion": "b", "label": "{x}"}
    (batch,) = read(Source(path=str(path), template=template), faults)
    assert len(batch.records) == 1
    assert [(problem.line, problem.field) for problem in faults.kept("error")] == [(2, "label")]


def test_missing_columns_are_told_by_line(tmp_path: Path, table: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question":"a"}\n{"queston":"b"}\n[1]\n{\n', encoding="utf-8")
    text = run("check", str(path), "--template", "{question}", code=2)
    errors = [(p["code"], p["line"], p["field"]) for p in text["problems"] if p["severity"] == "error"]
    assert errors == [("missing_column", 2, "question"), ("not_an_object", 3, None), ("invalid_json", 4, None)]
    assert text["problems"][0]["fix"] == "did you mean {queston}?"
    text = run("check", table, "--template", "{pregunt}", code=2)
    (problem,) = [p for p in text["problems"] if p["code"] == "missing_column"]
    assert problem["fix"] == "did you mean {pregunta}?"
    assert problem["line"] == 1


@pytest.mark.parametrize(("words", "said"), [
    (["--template", "{question"], "expected '}'"), (["--template", "{}"], "no column"),
    (["--template", "completion={tema}"], "complete row"), (["--template", "no places"], "no column"),
    (["--template", "{q}", "--map", "q=prompt"], "cannot be combined"),
    (["--template", "@nowhere.json"], "nowhere.json"),
    (["--template", "{q!r}"], "must be a column name"),
])  # fmt: skip
def test_bad_templates(table: str, words: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["data", "check", table, *words])
    assert result.exit_code == 2
    assert said in result.output


def test_a_spec_may_hold_templates(table: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        'model: m\ndata:\n  train:\n    path: faq.csv\n    template: {prompt: "¿{tema}? {pregunta}", completion: '
        '"{respuesta}"}\n', encoding="utf-8",
    )  # fmt: skip
    spec = load_spec(tmp_path / "job.yaml")
    assert prepare(spec.data).splits["train"].rows == 2
    (tmp_path / "job.yaml").write_text('model: m\ndata: {train: {path: faq.csv, template: "{x"}}\n', encoding="utf-8")
    with pytest.raises(SpecError, match="expected '}'"):
        load_spec(tmp_path / "job.yaml")


def test_jumpstart_gets_its_template_beside_the_rows(rows: str, tmp_path: Path) -> None:
    found = run("convert", rows, "--to", "jumpstart-instruction", "-o", str(tmp_path / "up" / "train.jsonl"))
    assert found["beside"] == [str(tmp_path / "up" / "template.json")]
    template = json.loads((tmp_path / "up" / "template.json").read_text())
    row = written(tmp_path / "up" / "train.jsonl")[0]
    assert template["prompt"].format(**row) == "question 0"
    assert template["completion"].format(**row).startswith("answer")
