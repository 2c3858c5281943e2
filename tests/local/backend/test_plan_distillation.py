"""The plan of distillation: its teacher, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.local.backend.test_plan import errors_of, request, sources, spec_json

from cloudtune.errors import SpecError
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.run_spec import read_spec
from cloudtune_trainer.submit.distillation import find_teacher
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from pathlib import Path


def found(name: str | None) -> dict[str, Any] | None:
    overrides = {"local": {"teacher": name}} if name else {}
    document = {"model": "m", "data": {"train": "t"}, "method": "distill", "overrides": overrides}
    return find_teacher(JobSpec.model_validate(document), "local")


def test_the_trainer_takes_the_teacher_of_the_plan(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "teacher")
    teacher = found(str(folder))
    assert teacher is not None
    asked = request(tmp_path, method={"name": "distill", "temperature": 2}, overrides={"local": {"teacher": "x"}})
    facts = asked.resolved.facts | {"teacher": teacher}
    asked = msgspec.structs.replace(asked, resolved=msgspec.structs.replace(asked.resolved, facts=facts))
    plan = LocalBackend(Options(root=tmp_path)).plan(asked)
    read = read_spec(dict(spec_json(plan)) | {"data": {"train": "data/train.jsonl"}}).teacher
    assert read is not None
    assert (read.path, read.fingerprint, read.temperature) == (str(folder), teacher["fingerprint"], 2.0)
    assert sources(plan)["overrides.local.teacher"] == (str(folder), "override")


def test_a_teacher_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text("{}", encoding="utf-8")
    for name, message in {
        None: "requires the folder of a larger model", str(tmp_path / "absent"): "no such file or folder",
        str(tmp_path): "has no config.json", str(tmp_path / "tiny.json"): "is not a folder",
    }.items():  # fmt: skip
        with pytest.raises(SpecError, match=message) as refused:
            found(name)
        assert refused.value.problems[0].field == "overrides.local.teacher"


@pytest.mark.parametrize(("field", "changes"), [
    ("overrides.local.teacher", {"method": "sft", "overrides": {"local": {"teacher": "/t"}}}),
    ("hyperparameters.packing", {"method": "distill", "hyperparameters": {"packing": True}}),
    ("method.max_new_tokens", {"method": {"name": "distill", "max_new_tokens": 3}}),
])  # fmt: skip
def test_what_has_no_effect_is_refused(tmp_path: Path, field: str, changes: dict[str, Any]) -> None:
    assert set(errors_of(tmp_path, **changes)) == {field}
