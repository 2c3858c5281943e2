"""What is written, held against the vendors' own types where their packages bring them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.unit.data.test_formats import EXAMPLES, chats, decode

from cloudtune.data.formats_table import FORMATS
from cloudtune.data.losses import features
from cloudtune.data.records import Chat, canonical

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def written(name: str, record: Chat) -> dict[str, Any]:
    form = FORMATS[name]
    lost = frozenset(features(record) - form.carries)
    return json.loads(form.line(record, canonical(record), lost))  # type: ignore[no-any-return]


@SETTINGS
@given(record=chats())
def test_openai_rows_are_messages_of_its_own_types(record: Chat) -> None:
    types = pytest.importorskip("openai.types.chat")
    from pydantic import TypeAdapter

    row = written("openai", record)
    messages = TypeAdapter(list[types.ChatCompletionMessageParam])
    dumped = messages.dump_python(messages.validate_python(row["messages"]))  # dumping reads the lazy parts too
    weights = [message.pop("weight", None) for message in row["messages"]]  # fine-tuning's own key
    assert set(weights) <= {None, 0, 1}
    assert json.loads(json.dumps(dumped, default=list)) == row["messages"]
    tools = TypeAdapter(list[types.ChatCompletionToolParam])
    tools.dump_python(tools.validate_python(row.get("tools", [])))


@SETTINGS
@given(record=chats())
def test_bedrock_rows_are_requests_of_its_converse_api(record: Chat) -> None:
    session = pytest.importorskip("botocore.session").get_session()
    from botocore.validate import ParamValidator

    if "images" in features(record):
        return
    row = written("bedrock-converse", record)
    assert row.pop("schemaVersion") == "bedrock-conversation-2024"
    shape = session.get_service_model("bedrock-runtime").operation_model("Converse").input_shape
    report = ParamValidator().validate({"modelId": "m", **row}, shape)
    assert not report.has_errors(), report.generate_report()
    assert set(row) <= {"messages", "system"}


def test_openais_preference_row_has_messages_of_its_own_types() -> None:
    types = pytest.importorskip("openai.types.chat")
    from pydantic import TypeAdapter

    row = next(row for row, name, _ in EXAMPLES if name == "openai-preference")
    (record,) = decode([row])
    made = json.loads(FORMATS["openai-preference"].line(record, canonical(record)))
    messages = TypeAdapter(list[types.ChatCompletionMessageParam])
    for turns in (made["input"]["messages"], made["preferred_output"], made["non_preferred_output"]):
        assert messages.dump_python(messages.validate_python(turns)) == turns
