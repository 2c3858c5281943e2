"""Metrics with a parameter: a JSON Schema in a file, and a Python function. And tool calls in answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cloudtune.errors import BackendError, InputError
from cloudtune.evaluation import patterns
from cloudtune.evaluation.choosing import chosen_metrics
from cloudtune.evaluation.function_trust import are_functions_trusted, trust_functions
from cloudtune.evaluation.tool_calls import match, same_names

if TYPE_CHECKING:
    from pathlib import Path


def value(name: str, answers: list[str], expected: list[str]) -> float:
    (metric,) = chosen_metrics([name], "text")
    return float(metric.value(np.ones((1, len(answers))), metric.rows(answers, expected))[0])


def test_answers_are_checked_against_a_json_schema(tmp_path: Path) -> None:
    path = tmp_path / "city.json"
    path.write_text(json.dumps({"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}))
    answers = ['{"city": "Bonn"}', '{"city": 1}', "{}", "Bonn", '{"city": "Bonn", "more": null}']
    assert value(f"json_schema:{path}", answers, [""] * 5) == 2 / 5


@pytest.mark.parametrize(("content", "message"), [
    ("{", "is not a JSON Schema"), ('{"type": "shape"}', "is not a JSON Schema: 'shape'"),
    ('{"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "b"}}}', "remove it"),
    ('{"unevaluatedProperties": false, "anyOf": [{"patternProperties": {}}]}', "use additionalProperties"),
    (None, "No such file"), ('{"$ref": "http://127.0.0.1:9/other.json"}', "refers to a document that is not in it"),
])  # fmt: skip
def test_a_wrong_schema_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        value(f"json_schema:{path}", ["{}"], [""])


SLOW = "^(a|aa)+$"


@pytest.mark.parametrize("schema", [
    None, {"properties": {"x": {"pattern": SLOW}}}, {"patternProperties": {SLOW: False}},
    {"patternProperties": {SLOW: {}}, "additionalProperties": False},
    {"properties": {"x": {}}, "additionalProperties": False, "patternProperties": {SLOW: {}}},
    {"properties": {"x": {"$ref": "#/$defs/y"}}, "$defs": {"y": {"anyOf": [{"pattern": SLOW}]}}},
    {"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"x": {"pattern": SLOW}}},
])  # fmt: skip
def test_a_slow_pattern_is_an_error_and_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: dict[str, object] | None
) -> None:
    monkeypatch.setattr(patterns, "SEARCH_S", 0.05)
    name, text = f"regex:{SLOW}", "a" * 200 + "!"
    if schema is not None:
        (tmp_path / "schema.json").write_text(json.dumps(schema))
        name, text = f"json_schema:{tmp_path}/schema.json", json.dumps({"x": text, text: 1})
    with pytest.raises(InputError) as refused:
        value(name, ["{}", text], ["", ""])
    assert f"the pattern {SLOW!r} takes more than 0.05 s in the answer to row 2" in str(refused.value)


def test_limited_keywords_are_those_of_json_schema(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({
        "properties": {"a": {"pattern": "^x"}}, "patternProperties": {"^n": {"type": "integer"}},
        "additionalProperties": {"type": "boolean"},
    }))  # fmt: skip
    right = ['{"a": "xy", "n1": 2, "other": true}', '{"a": 5}', "[]"]
    wrong = ['{"a": "yx"}', '{"n1": "2"}', '{"other": 1}', '{"a": "x", "n": true}']
    assert value(f"json_schema:{path}", [*right, *wrong], [""] * 7) == 3 / 7


def test_a_function_is_a_metric(tmp_path: Path) -> None:
    path = tmp_path / "score.py"
    path.write_text("def length(answer, expected):\n    return len(answer) / len(expected)\n")
    assert value(f"{path}:length", ["ab", "abcd"], ["abcd", "abcd"]) == 0.75
    assert value("operator:eq", ["a", "b"], ["a", "a"]) == 0.5
    with pytest.raises(BackendError, match=r"score\.py:length failed for the answer 'ab': ZeroDivisionError"):
        value(f"{path}:length", ["ab"], [""])


@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "1e200"])
def test_a_function_without_a_usable_number_is_refused(score: str) -> None:
    with pytest.raises(BackendError, match=r"the metric os\.path:join is .* for the answer ''"):
        value("os.path:join", [""], [score])  # its value is the score


@pytest.mark.parametrize("name", ["no_such_module:f", "operator:no_such", "operator:__doc__", "missing.py:f"])
def test_a_function_that_cannot_be_imported_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        chosen_metrics([name], "text")
    assert chosen_metrics([name], "text", load=False)[0].name == name


def test_functions_of_modules_are_never_remembered(tmp_path: Path) -> None:
    file = tmp_path / "score.py"
    file.write_text("def f(answer, expected):\n    return 1\n")
    for metrics, trusted in (([], True), ([f"{file}:f"], True), (["subprocess:getoutput"], False),
                             ([f"{file}:f", "subprocess:getoutput"], False)):  # fmt: skip
        spec = {"evaluation": {"metrics": ["accuracy", *metrics]}}
        trust_functions(spec)
        assert are_functions_trusted(spec) is trusted


CALL = {"name": "weather", "arguments": {"city": "Bonn", "days": 2}}
OTHER = {"name": "time", "arguments": {}}


@pytest.mark.parametrize("answer", [
    json.dumps([OTHER, CALL]),
    json.dumps({"tool_calls": [
        {"id": "1", "type": "function", "function": {**CALL, "arguments": '{"days": 2, "city": "Bonn"}'}},
        {"id": "2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]}),
    f"Let me see. <tool_call>\n{json.dumps(CALL)}</tool_call><tool_call>{json.dumps(OTHER)}</tool_call>",
    json.dumps([{"name": "weather", "parameters": CALL["arguments"]}, {"name": "time"}]),
    json.dumps([{"name": "weather", "arguments": {"city": "Bonn", "days": 2.0}}, OTHER]),
])  # fmt: skip
def test_equal_tool_calls_match_in_every_form(answer: str) -> None:
    assert match(answer, json.dumps([CALL, OTHER]))


@pytest.mark.parametrize("answer", [
    json.dumps(CALL), json.dumps([CALL, CALL]), json.dumps([CALL, OTHER, OTHER]), "no call", "[]", "null",
    json.dumps([{**CALL, "arguments": {"city": "Bonn", "days": 3}}, OTHER]),
    json.dumps([{**CALL, "arguments": {"city": "Bonn", "days": True}}, OTHER]), json.dumps([CALL, {"name": 5}]),
    json.dumps([CALL, {"name": "time", "arguments": "{"}]),
])  # fmt: skip
def test_other_tool_calls_do_not_match(answer: str) -> None:
    assert not match(answer, json.dumps([CALL, OTHER]))


@pytest.mark.parametrize("expected", ["It is sunny.", "[]", "null", '{"tool_calls": []}'])
@pytest.mark.parametrize(("answer", "is_right"), [
    ("Sunny, I think.", True), ("[]", True), ('{"city": "Bonn"}', True), ("42", True), (json.dumps(CALL), False),
    ('{"name": "time", "arguments": "{"}', False), ("<tool_call>{</tool_call>", False), ('[{"name": 5}]', False),
])  # fmt: skip
def test_a_row_without_a_call_expects_none(expected: str, answer: str, is_right: bool) -> None:
    assert match(answer, expected) is is_right


@pytest.mark.parametrize("expected", ['<tool_call>{"name": "f", "arguments": [1]}</tool_call>', '[{"name": 5}]'])
def test_no_answer_matches_a_malformed_call(expected: str) -> None:
    assert not match("no call", expected)
    assert not same_names("no call", expected)


def test_the_names_of_tools_match_with_any_arguments() -> None:
    other = json.dumps([OTHER, {"name": "weather", "arguments": {}}])
    assert (same_names(other, json.dumps([CALL, OTHER])), match(other, json.dumps([CALL, OTHER]))) == (True, False)
    assert not same_names(json.dumps([CALL, CALL]), json.dumps(CALL))
    assert not same_names('[{"name": 5}]', "no call")
