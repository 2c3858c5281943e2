"""``data.mix``: other rows between the training rows, by weight, the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloudtune.cli.main import cli
from cloudtune.client import Client
from cloudtune.data.checks.preparing import prepare
from cloudtune.data.encoding import encode
from cloudtune.document.specfile import load_spec
from cloudtune.errors import DataError, SpecError
from cloudtune.spec import Data
from cloudtune.testing.scripted_world import ScriptedWorld


def rows(path: Path, name: str, count: int, **more: object) -> str:
    lines = [{"prompt": f"{name} {i}", "completion": f"answer {i}", **more} for i in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "train": rows(tmp_path / "own.jsonl", "own", 200),
        "general": rows(tmp_path / "general.jsonl", "general", 400),
        "few": rows(tmp_path / "few.jsonl", "few", 3),
    }


def asked(data: Data, out: Path, form: str = "cloudtune", split: str = "train") -> list[str]:
    """The questions of a side, as they are written; encoded against the hash that preparing gave."""
    done = encode(data, split=split, format=form, to=out, expect_sha256=prepare(data).splits[split].sha256)
    found = [json.loads(line) for line in done.path.read_text(encoding="utf-8").splitlines()]
    assert len(found) == done.rows
    return [row["messages"][0]["content"] if "messages" in row else row["prompt"] for row in found]


def of(questions: list[str], name: str) -> list[str]:
    return [question for question in questions if question.startswith(name)]


def mix(files: dict[str, str], weight: float = 0.25, name: str = "general", **more: object) -> Data:
    return Data.model_validate({"train": files["train"], "mix": [{"path": files[name], "weight": weight}], **more})


def test_one_row_after_every_fourth_and_the_same_each_time(files: dict[str, str], tmp_path: Path) -> None:
    found = asked(mix(files), tmp_path / "out.jsonl")
    assert of(found, "own") == [f"own {i}" for i in range(200)]
    taken = of(found, "general")
    assert len(taken) == len(set(taken)) == 50
    assert [i % 5 for i, question in enumerate(found) if question.startswith("general")] == [4] * 50
    assert taken != sorted(taken, key=lambda text: int(text.split()[1])), "chosen by hash, not from the beginning"
    assert asked(mix(files), tmp_path / "again.jsonl") == found
    assert of(asked(mix(files, split_seed=1), tmp_path / "other.jsonl"), "general") != taken


def test_formats_are_written_with_what_is_mixed_in(files: dict[str, str], tmp_path: Path) -> None:
    plain = asked(mix(files), tmp_path / "plain.jsonl")
    assert asked(mix(files), tmp_path / "prompts.jsonl", "prompt-completion") == plain
    # One source is rewritten for the format, the other passes through.
    weighted = tmp_path / "weighted.jsonl"
    row = {"messages": [{"role": "user", "content": "weighted"}, {"role": "assistant", "content": "a", "weight": 1}]}
    weighted.write_text(json.dumps(row) + "\n", encoding="utf-8")
    data = Data.model_validate({"train": files["train"], "mix": {"path": str(weighted), "weight": 0.5}})
    assert of(asked(data, tmp_path / "openai.jsonl", "openai"), "weighted") == ["weighted"] * 100


def test_rows_added_to_a_source_change_few_of_those_taken(files: dict[str, str], tmp_path: Path) -> None:
    before = set(of(asked(mix(files), tmp_path / "a.jsonl"), "general"))
    rows(Path(files["general"]), "general", 420)
    after = set(of(asked(mix(files), tmp_path / "b.jsonl"), "general"))
    assert len(before) == len(after) == 50
    assert len(before & after) >= 42


def test_nothing_of_a_held_out_share_comes_back(files: dict[str, str], tmp_path: Path) -> None:
    data = mix({**files, "general": files["train"]}, 1.0, validation=0.3)
    held_out = set(asked(data, tmp_path / "validation.jsonl", split="validation"))
    learnt = set(asked(data, tmp_path / "train.jsonl"))
    assert len(held_out) > 30
    assert not held_out & learnt
    assert "leak" not in {problem.code for problem in prepare(data).problems}
    apart = mix(files, 1.0, validation=files["general"])
    assert [p.code for p in prepare(apart).problems if p.severity == "warning"][:1] == ["leak"]


def test_a_source_that_is_used_up_begins_again_and_that_is_told(files: dict[str, str], tmp_path: Path) -> None:
    data = mix(files, 0.1, "few")
    assert sorted(set(of(asked(data, tmp_path / "out.jsonl"), "few"))) == ["few 0", "few 1", "few 2"]
    problems = {problem.code: problem for problem in prepare(data).problems}
    assert problems["mix"].message == f"20 rows of {files['few']} are mixed in, of 3 (weight 0.1)"
    assert problems["mix_repeats"].severity == "warning"
    assert problems["mix_repeats"].field == "data.mix[0]"
    assert "mix_empty" in {problem.code for problem in prepare(mix(files, 0.001)).problems}


def test_faults_of_a_mixed_source_have_their_places(files: dict[str, str]) -> None:
    Path(files["general"]).write_text('{"prompt":"a","completion":"b"}\n{"prompt":"a"\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        prepare(mix(files))
    assert [(p.code, p.file, p.line) for p in caught.value.problems][:1] == [("invalid_json", files["general"], 2)]
    Path(files["general"]).write_text('{"text":"a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"mix\[0\] has text rows, train has chat rows"):
        prepare(mix(files))


def test_a_spec_file_names_its_mix_beside_itself(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "model: m\ndata:\n  train: own.jsonl\n  mix:\n  - {path: [general.jsonl, few.jsonl], weight: 0.5}\n"
        "  - {path: few.jsonl, weight: 1}\n", encoding="utf-8",
    )  # fmt: skip
    spec = load_spec(tmp_path / "job.yaml")
    assert spec.data.mix is not None
    assert [one.paths for one in spec.data.mix] == [(files["general"], files["few"]), (files["few"],)]
    assert not any("mix" in feature for feature in spec.requested_fields())
    (tmp_path / "job.yaml").write_text("model: m\ndata: {train: own.jsonl, mix: [{path: few.jsonl, weight: 0}, x]}\n")
    with pytest.raises(SpecError) as refused:
        load_spec(tmp_path / "job.yaml")
    assert {problem.field for problem in refused.value.problems} == {"data.mix.0.weight", "data.mix.1"}


def test_convert_mixes_too(files: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ["data", "convert", files["train"], "--to", "prompt-completion", "-o", str(out), "--json"]
    result = CliRunner().invoke(cli, [*words, "--mix", f"{files['general']}=0.25", "--mix", f"{files['few']}=0.01"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["counts"]["mix"] == 2
    found = [json.loads(line)["prompt"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert (len(of(found, "general")), len(of(found, "few")), len(found)) == (50, 2, 252)
    assert of(found, "general") == of(asked(mix(files), tmp_path / "spec.jsonl"), "general")
    for bad in ("general.jsonl", f"{files['general']}=0", f"{files['general']}=much"):
        assert CliRunner().invoke(cli, [*words, "--mix", bad]).exit_code == 2


def test_the_mixture_is_part_of_the_job(files: dict[str, str], memory_path: Path) -> None:
    world = ScriptedWorld(memory_path)
    client = Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    specs = [world.spec(data=data.model_dump(exclude_none=True)) for data in (
        mix(files), mix(files, 0.5), mix(files, split_seed=1), Data.model_validate({"train": files["train"]}),
    )]  # fmt: skip
    plans = [client.plan(spec) for spec in specs]
    assert len({plan.key for plan in plans}) == 4
    assert plans[0].data.splits["train"].rows == 250
    assert "mix" in {problem.code for problem in plans[0].warnings}
    job = client.submit(specs[0])
    assert client.submit(specs[0]) == job
    (spooled,) = (world.root / "spool").glob("*.jsonl")
    assert spooled.read_text(encoding="utf-8").count("general") == 50
