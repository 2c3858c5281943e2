"""A spec file: what is read, what is refused, and where the message points."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.document.specfile import load_spec, name_from, open_spec, parse_spec
from cloudtune.errors import Problem, SpecError
from cloudtune.spec import JobSpec

GOOD = """\
version: 1
name: headlines
model: ./weights
method: sft
data:
  train: rows.jsonl
  validation: 0.1
adapter: {type: lora, rank: 4}
hyperparameters:
  epochs: 2
  learning_rate: 2e-4
  packing: no
limits: {max_time: 1h30m}
"""


def _refused(path: Path, text: str | bytes | None = None, **options: Any) -> tuple[Problem, ...]:
    if isinstance(text, bytes):
        path.write_bytes(text)
    elif text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(path, **options)
    return caught.value.problems


def _places(problems: tuple[Problem, ...]) -> list[tuple[int | None, str | None]]:
    return [(problem.line, problem.field) for problem in problems]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


# -- what is read --------------------------------------------------------------------------------------------------


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    values = {
        "name": "headlines", "model": "./weights", "data": {"train": "rows.jsonl", "validation": 0.1},
        "adapter": {"type": "lora", "rank": 4}, "hyperparameters": {"epochs": 2, "learning_rate": 2e-4,
        "packing": False}, "limits": {"max_time": "1h30m"},
    }  # fmt: skip
    toml = """
        name = "headlines"
        model = "./weights"
        data = {train = "rows.jsonl", validation = 0.1}
        [adapter]
        type = "lora"
        rank = 4
        [hyperparameters]
        epochs = 2
        learning_rate = 2e-4
        packing = false
        [limits]
        max_time = "1h30m"
    """
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.toml").write_text(toml)
    read = [load_spec(tmp_path / name) for name in ("a.yaml", "a.json", "a.toml")]
    assert read[0] == read[1] == read[2]
    assert read[0].hyperparameters.packing is False
    assert read[0].hyperparameters.learning_rate == 2e-4
    assert read[0].limits.max_time == 5400


def test_a_file_without_a_known_ending_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(GOOD)
    (tmp_path / "b").write_text('{"model": "x", "data": {"train": "rows.jsonl"}, "name": "b"}')
    assert load_spec(tmp_path / "a").name == "headlines"
    assert load_spec(tmp_path / "b").model == "x"


def test_an_empty_section_means_what_a_missing_one_means(file: Path) -> None:
    file.write_text("model: x\nhyperparameters:\n  # epochs: 3\ndata:\n  train: a.jsonl\n  validation:\n")
    spec = load_spec(file)
    assert spec.hyperparameters.epochs is None
    assert spec.data.validation is None


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    texts = {
        "a.yaml": GOOD, "a.json": '{"name": "headlines", "model": "x", "data": {"train": "a"}}',
        "a.toml": 'name = "headlines"\nmodel = "x"\ndata = {train = "a"}\n',
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_spec(tmp_path / name).name == "headlines"


def test_yaml_anchors_and_merges_work(file: Path) -> None:
    file.write_text(
        "model: x\ntags: &t {team: a, kind: b}\ndata:\n  train: &rows a.jsonl\n  test: *rows\n"
        "overrides:\n  local: {<<: *t, kind: c}\n"
    )
    spec = load_spec(file)
    assert spec.data.train == spec.data.test
    assert spec.overrides["local"] == {"team": "a", "kind": "c"}


def test_relative_paths_count_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "specs"
    (folder / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (folder / "a.yaml").write_text(
        "model: {local: ../w, openai: gpt-4.1, other: base, gguf: m.gguf, home: ~/m, hub: org/name}\n"
        "data:\n  train: [a.jsonl, /x/b.jsonl, s3://bucket/c.jsonl]\n  validation: {path: ../v.csv, kind: text}\n"
        "  test: 0.2\n"
    )
    spec = load_spec("specs/a.yaml")
    assert spec.model == {
        "local": str(tmp_path / "w"), "openai": "gpt-4.1", "other": str(folder / "base"),
        "gguf": str(folder / "m.gguf"), "home": str(Path("~/m").expanduser()), "hub": "org/name",
    }  # fmt: skip
    assert spec.data.train.paths == (str(folder / "a.jsonl"), "/x/b.jsonl", "s3://bucket/c.jsonl")
    assert spec.data.validation.path == str(tmp_path / "v.csv")  # type: ignore[union-attr]
    assert spec.data.test == 0.2


def test_what_the_command_line_gives_counts_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "a.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    spec = load_spec("specs/a.yaml", set=["data.train=here.jsonl", "model=./w"])
    assert spec.data.train.path == str(tmp_path / "here.jsonl")
    assert spec.model == str(tmp_path / "w")


def test_the_name_comes_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "Ünsere Jobs, Nr. 3!.yaml"
    path.write_text("model: x\ndata: {train: a.jsonl}\n")
    assert load_spec(path).name == "Unsere-Jobs-Nr-3"


@given(st.text())
def test_every_text_makes_a_valid_name(text: str) -> None:
    name = name_from(text)
    assert JobSpec(name=name, model="x", data={"train": "a"}).name == name  # type: ignore[arg-type]


def test_a_spec_written_out_and_read_again_is_the_same(tmp_path: Path, file: Path) -> None:
    file.write_text(GOOD)
    spec = load_spec(file)
    again = tmp_path / "elsewhere" / "again.json"
    again.parent.mkdir()
    again.write_text(spec.model_dump_json(exclude_none=True))
    assert load_spec(again) == spec


def test_plain_values_are_checked_in_the_same_way(tmp_path: Path) -> None:
    spec = parse_spec({"model": "./w", "data": {"train": "a.jsonl"}}, folder=tmp_path, changes=["seed=7"])
    assert (spec.seed, spec.model) == (7, str(tmp_path / "w"))
    with pytest.raises(SpecError, match=r"^hyperparameters.epoch: unknown key") as caught:
        parse_spec({"model": "x", "data": {"train": "a"}, "hyperparameters": {"epoch": 1}})
    assert caught.value.problems[0].file is None


# -- faults of the file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "the file is empty"),
        ("  \n\n", None, "the file is empty"),
        ("# only a comment\n", None, "only comments"),
        ("- a\n- b\n", None, "contains a list"),
        ("just words\n", None, "contains a single value"),
        ("model: x\ndata:\n\ttrain: a\n", 3, "a tab is used for indentation"),
        ("model: a: b\n", 1, "column 9: mapping values are not allowed here"),
        ("model: 'x\nseed: 3\n", 3, "that starts in line 1"),
        ("model: [x\n", 2, "expected ',' or ']'"),
        ("model: *nope\n", 1, "undefined alias"),
        ("model: @x\n", 1, "column 8"),
        ("model: x\n---\nmodel: y\n", 2, "a second document starts here"),
        ("model: !!python/object:os.system x\n", 1, "is not allowed"),
        ("model: &a [*a]\n", 1, "refers to itself"),
        ("? [a]\n: 1\n", 1, "a key must be a string"),
        ("model: \x07\n", 1, "U+0007"),
        (b"model: x\nname: \xff\n", 2, "byte 0xff is not UTF-8 text"),
        ("[" * 5000, 1, "50 levels"),
        ("model: x\n" * 600_000, None, "larger than 256 KiB"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_with_its_line(file: Path, text: str | bytes, line: int | None, words: str) -> None:
    (problem,) = _refused(file, text)
    assert words in problem.message
    assert (problem.file, problem.line) == (str(file), line)


def test_aliases_that_grow_without_measure_are_refused(file: Path) -> None:
    layers = "\n".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9))
    (problem,) = _refused(file, f"overrides:\n  l0: &l0 [x]\n{layers}\n")
    assert "more than 10,000 values" in problem.message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{"model": "x",\n "seed": }', 2, "column 10: Expecting value"),
        ('{"model": "x",}', 1, "column 15"),
        ('{"model": "x"}\n{"model": "y"}', 2, "Extra data"),
        ('{"seed": ' + "1" * 5000 + "}", None, "not valid JSON"),
        ('{"a":' * 10_000, None, "nested too deeply"),
    ],
)
def test_broken_json_is_told_with_its_line(tmp_path: Path, text: str, line: int | None, words: str) -> None:
    (problem,) = _refused(tmp_path / "a.json", text)
    assert words in problem.message
    assert problem.line == line


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [('model = "x"\nseed = \n', 2, "column 8"), ('model = "x"\nmodel = "y"\n\n', 2, "Cannot overwrite")],
)
def test_broken_toml_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    (problem,) = _refused(tmp_path / "a.toml", text)
    assert words in problem.message
    assert problem.line == line


def test_what_is_no_file_is_told_apart(tmp_path: Path) -> None:
    (missing,) = _refused(tmp_path / "no.yaml")
    (folder,) = _refused(tmp_path)
    (rows,) = _refused(tmp_path / "rows.jsonl", '{"prompt": "a"}\n')
    (through,) = _refused(tmp_path / "rows.jsonl" / "x.yaml")
    assert [missing.code, folder.code] == ["no_file", "directory"]
    assert "data file" in rows.message
    assert through.code == "unreadable"
    assert missing.fix
    assert folder.fix
    assert rows.fix


def test_a_file_without_permission(file: Path) -> None:
    file.write_text(GOOD)
    file.chmod(0)
    child = os.fork()  # root may read everything, so that the question is asked by somebody else
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            load_spec(file)
        except SpecError as error:
            code = 0 if [problem.code for problem in error.problems] == ["no_permission"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- faults of the values ------------------------------------------------------------------------------------------


def test_every_fault_is_told_at_once_in_the_order_of_the_file(file: Path) -> None:
    problems = _refused(
        file,
        "model: x\n"  # 1
        "data:\n"
        "  train: rows.jsonl\n"
        "  validation: 1.5\n"  # 4
        "  tset: 0.1\n"  # 5
        "hyperparameters:\n"
        "  epochs: true\n"  # 7
        "  batch_size: -3\n"
        "  learning_rate: .nan\n"
        "  max_length: 1.5\n"
        "  scheduler: cosin\n"  # 11
        "method: sftt\n"
        "validation: {every: -3}\n"
        "checkpoints: {every: epochs}\n"
        "tags: {a: 3}\n"  # 15
        "name: -x-\n",
    )
    assert _places(problems) == [
        (4, "data.validation"), (5, "data.tset"), (7, "hyperparameters.epochs"), (8, "hyperparameters.batch_size"),
        (9, "hyperparameters.learning_rate"), (10, "hyperparameters.max_length"), (11, "hyperparameters.scheduler"),
        (12, "method"), (13, "validation.every"), (14, "checkpoints.every"), (15, "tags.a"), (16, "name"),
    ]  # fmt: skip
    words = {problem.field: f"{problem.message} | {problem.fix}" for problem in problems}
    assert "less than 1.0, not 1.5" in words["data.validation"]
    assert "did you mean test?" in words["data.tset"]
    assert "not true or false" in words["hyperparameters.epochs"]
    assert "finite number, not nan" in words["hyperparameters.learning_rate"]
    assert "expected a whole number, got 1.5" in words["hyperparameters.max_length"]
    assert "did you mean 'cosine'?" in words["hyperparameters.scheduler"]
    assert "did you mean 'sft'?" in words["method"]
    assert "epoch or a whole number" in words["checkpoints.every"]
    assert "quote it" in words["tags.a"]


@pytest.mark.parametrize("figure", ["nan", "inf", "-inf", ".inf", ".NaN"])
@pytest.mark.parametrize("field", ["learning_rate", "weight_decay", "warmup_ratio", "epochs", "adam_epsilon"])
def test_no_figure_may_be_infinite_or_not_a_number(file: Path, field: str, figure: str) -> None:
    problems = _refused(file, f"model: x\ndata: {{train: a}}\nhyperparameters:\n  {field}: {figure}\n")
    assert _places(problems) == [(4, f"hyperparameters.{field}")]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("modle: x", "model"),
        ("hyperparameter: {}", "hyperparameters"),
        ("epochs: 3", "hyperparameters.epochs"),
        ("lr: 1e-4", "hyperparameters.learning_rate"),
        ("num_train_epochs: 3", "hyperparameters.epochs"),
        ("base_model: x", "model"),
        ("lora_alpha: 3", "adapter.alpha"),
        ("hyperparameters: {learning_rat: 1}", "learning_rate"),
        ("adapter: {type: lora, ranks: 3}", "rank"),
        ("validation: {early_stopping: {patiense: 3}}", "patience"),
        ("data: {train: {path: a, clumns: {}}}", "columns"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(file: Path, text: str, near: str) -> None:
    problems = _refused(file, text)
    (unknown,) = [problem for problem in problems if problem.code == "extra_forbidden"]
    assert unknown.fix is not None
    assert near in unknown.fix.removesuffix("?").split()
    assert unknown.line == 1


def test_what_is_missing_is_told_with_an_example(file: Path) -> None:
    problems = _refused(file, "name: x\n")
    assert {problem.field: problem.fix for problem in problems} == {
        "model": "add `model: ./folder-with-weights`",
        "data": "add `data: {train: rows.jsonl}`",
    }


def test_a_key_that_stands_twice_is_told_beside_the_other_faults(tmp_path: Path) -> None:
    yaml = _refused(tmp_path / "a.yaml", "model: x\ndata: {train: a}\nseed: -1\nmodel: y\n")
    text = '{"model": "x",\n"data": {"train": "a", "train": "b"},\n"seed": -1,\n"model": "y"}'
    found = _refused(tmp_path / "a.json", text)
    assert _places(yaml) == [(3, "seed"), (4, "model")]
    assert _places(found) == [(2, "data.train"), (3, "seed"), (4, "model")]
    assert "first defined in line 1" in yaml[1].message


def test_a_newer_version_is_only_told_to_upgrade(file: Path) -> None:
    (problem,) = _refused(file, "# new\nversion: 2\nmodle: x\nquantum: true\n")
    assert (problem.code, problem.line, problem.field) == ("newer_version", 2, "version")
    assert problem.fix is not None
    assert "upgrade" in problem.fix


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "yes"])
def test_a_version_that_never_was(file: Path, version: str) -> None:
    problems = _refused(file, f"version: {version}\nmodel: x\ndata: {{train: a}}\n")
    assert _places(problems) == [(1, "version")]


def test_faults_in_toml_and_json_have_their_lines(tmp_path: Path) -> None:
    toml = (
        'model = "x"\nnote = """\n[hyperparameters]\nbatch_size = 0\n"""\n'
        '[data]\ntrain = "a"\n[hyperparameters]\nbatch_size = 0\nepoch = 1\n'
    )
    text = '{\n "model": "x",\n "data": {\n  "train": ["a", 3]\n },\n "hyperparameters": {"epochs": NaN}\n}'
    assert _places(_refused(tmp_path / "a.toml", toml)) == [
        (2, "note"), (9, "hyperparameters.batch_size"), (10, "hyperparameters.epoch"),
    ]  # fmt: skip
    assert _places(_refused(tmp_path / "a.json", text)) == [(4, "data.train.1"), (6, "hyperparameters.epochs")]


# -- no secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "model: ${MODEL}",
        "overrides: {openai: {suffix: 'x-${USER}'}}",
        "data: {train: ['${DATA}/rows.jsonl']}",
        "overrides: {openai: {api_key: abc}}",
        "tags: {hf_token: abc}",
        "name: sk-abcdefghijklmnopqrstuvwxyz",
        "tags: {a: AKIAIOSFODNN7EXAMPLE}",
    ],
)
def test_a_spec_takes_no_secret_and_no_reference(file: Path, text: str) -> None:
    problems = [problem for problem in _refused(file, text) if problem.code in ("reference", "secret")]
    (problem,) = problems
    assert "stored" in problem.message
    assert problem.line == 1


def test_a_refused_secret_is_not_repeated(file: Path) -> None:
    secret = "sk-abcdefghijklmnopqrstuvwxyz"
    text = "; ".join(map(str, _refused(file, f"tags: {{a: {secret}}}\nmodel: x\ndata: {{train: a}}\n")))
    assert secret not in text


def test_words_that_only_sound_like_secrets_are_fine(file: Path) -> None:
    file.write_text(
        "model: x\ndata: {train: a}\ntags: {tokenizer: a, keyboard: b}\n"
        "overrides: {sagemaker: {max_tokens: '3', kms_key: 'arn:aws:kms:x', secret_arn: b}}\n"
    )
    assert load_spec(file).overrides["sagemaker"]["max_tokens"] == "3"


# -- --set ---------------------------------------------------------------------------------------------------------


def test_the_command_line_wins_and_may_go_below_a_short_form(file: Path) -> None:
    file.write_text("model: x\ndata: {train: a.jsonl}\nmethod: sft\nhyperparameters: {epochs: 1}\n")
    spec = load_spec(
        file,
        set=[
            "hyperparameters.epochs=2e0", "hyperparameters.packing=no", "method.loss_on=all", "adapter=lora",
            "adapter.rank=4", "adapter.targets=[q_proj, v_proj]", "data.train.kind=text", "tags.team=a=b", "name=n1",
        ],
    )  # fmt: skip
    assert spec.hyperparameters.epochs == 2
    assert spec.hyperparameters.packing is False
    assert (spec.method.name, spec.method.loss_on) == ("sft", "all")
    assert (spec.adapter.rank, spec.adapter.targets) == (4, ("q_proj", "v_proj"))  # type: ignore[union-attr]
    assert spec.data.train.kind == "text"
    assert spec.data.train.path == str(file.parent / "a.jsonl")
    assert (spec.tags, spec.name) == ({"team": "a=b"}, "n1")


def test_an_empty_value_takes_the_field_out(file: Path) -> None:
    file.write_text("model: x\ndata: {train: a.jsonl}\nseed: 3\n")
    assert load_spec(file, set=["seed="]).seed is None


def test_faults_of_the_command_line_say_so(file: Path) -> None:
    problems = _refused(
        file,
        "model: x\ndata: {train: a}\nseed: -1\n",
        set=["oops", "hyperparameters.epochs=many", "seed.x=3", "model.y=1", "tags.a=[1", "=3", "limits.max_tim=1"],
    )
    assert [(problem.file, problem.field) for problem in problems] == [
        (str(file), "seed"), ("--set", None), ("--set", "seed.x"), ("--set", "model.y"), ("--set", "tags.a"),
        ("--set", None), ("--set", "hyperparameters.epochs"), ("--set", "limits.max_tim"),
    ]  # fmt: skip
    by_field = {problem.field: problem for problem in problems}
    assert by_field["hyperparameters.epochs"].message == "expected a number, got 'many'"
    assert by_field["model.y"].message == "model is 'x', which has no field 'y'"
    assert by_field["limits.max_tim"].fix == "did you mean max_time?"
    assert "column" in by_field["tags.a"].message


# -- places for later messages -------------------------------------------------------------------------------------


def test_a_later_problem_is_given_the_line_of_its_field(file: Path) -> None:
    file.write_text(GOOD)
    opened = open_spec(file, ["seed=3"])

    def place(field: str) -> tuple[str | None, int | None]:
        found = opened.placed(Problem(code="c", message="m", field=field))
        return found.file, found.line

    assert place("hyperparameters.packing") == (str(file), 12)
    assert place("adapter.rank") == (str(file), 8)
    assert place("method.name") == (str(file), 4)
    assert place("seed") == ("--set", None)
    assert place("tags") == (None, None)
    kept = Problem(code="c", message="m", file="rows.jsonl", line=3, field="model")
    assert opened.placed(kept) is kept


def test_paths_of_an_evaluation_start_at_the_folder_of_the_spec(tmp_path: Path) -> None:
    metrics = ["accuracy", "score.py:f", "package.module:f", "json_schema:city.json", "regex:a.py:b"]
    evaluation = {"data": "test.jsonl", "guard": {"path": ["a.jsonl", "/b.jsonl"]}, "metrics": metrics}
    values = {"model": "m", "data": {"train": "rows.jsonl"}, "evaluation": evaluation}
    found = parse_spec(values, folder=tmp_path).evaluation
    assert found is not None
    assert found.data is not None
    assert found.data.path == f"{tmp_path}/test.jsonl"
    assert found.guard is not None
    assert found.guard.paths == (f"{tmp_path}/a.jsonl", "/b.jsonl")
    assert found.metrics == (
        "accuracy", f"{tmp_path}/score.py:f", "package.module:f", f"json_schema:{tmp_path}/city.json", "regex:a.py:b"
    )  # fmt: skip
    short = parse_spec({**values, "evaluation": "test.jsonl"}, folder=tmp_path, changes=["evaluation.few_shot=2"])
    assert short.evaluation is not None
    assert (short.evaluation.data, short.evaluation.few_shot) == (found.data, 2)
