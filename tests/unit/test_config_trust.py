"""A project file from another author: when it applies, and what it can set before the user trusts it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from cloudtune.config import config as config_module
from cloudtune.config.config import load_config
from cloudtune.config.option_types import Safe, effect_of
from cloudtune.config.trust import is_trusted, trust, untrust
from cloudtune.errors import ConfigError, Problem
from cloudtune.redaction.masking import is_secret_name
from cloudtune.registry import BUILT_IN, backend_class
from cloudtune.testing.scripted_options import ScriptedOptions

OPTIONS: dict[str, type[BaseModel]] = {name: backend_class(name).Options for name in BUILT_IN}
FIELDS = [(name, key) for name, options in OPTIONS.items() for key in options.model_fields]
SENSITIVE = [(name, key) for name, key in FIELDS if effect_of(OPTIONS[name], key) != "safe"]
ENDPOINTS = [(name, key) for name, key in FIELDS if effect_of(OPTIONS[name], key) == "endpoint"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file of a cloned repository, not yet written."""
    monkeypatch.setattr(config_module, "user_file", lambda: tmp_path / "user.toml")
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *_, **__: str(tmp_path / "state"))
    (tmp_path / "clone" / ".git").mkdir(parents=True)
    return tmp_path / "clone" / "cloudtune.toml"


def problem_of(project: Path, backend: str = "local", environ: dict[str, str] | None = None) -> Problem:
    with pytest.raises(ConfigError) as refused:
        load_config(project.parent, environ=environ or {}).settings(backend)
    (problem,) = refused.value.problems
    return problem


# -- what each setting can do ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "key"), [*FIELDS, *(("scripted", key) for key in ScriptedOptions.model_fields)])
def test_every_option_declares_its_effect(backend: str, key: str) -> None:
    options = OPTIONS.get(backend, ScriptedOptions)
    assert effect_of(options, key) != "unclassified", f"give {backend}'s {key} a type of cloudtune.config.option_types"


@pytest.mark.parametrize(("backend", "key"), FIELDS)
def test_a_telling_name_is_not_declared_safe(backend: str, key: str) -> None:
    telling = r"url|python|image|key$|token|secret|role|profile$|root|bucket|isolation|encrypt|eula"
    assert not (re.search(telling, key) and effect_of(OPTIONS[backend], key) == "safe")


@pytest.mark.parametrize("backend", BUILT_IN)
def test_a_spec_cannot_override_what_needs_trust(backend: str) -> None:
    shared = set(backend_class(backend).Overrides.model_fields) & {key for name, key in SENSITIVE if name == backend}
    assert shared <= {"accept_eula"}  # terms of one model, accepted for one job
    assert not [key for key in backend_class(backend).Overrides.model_fields if re.search(r"url|python|image", key)]


def test_an_undeclared_or_unknown_option_needs_trust() -> None:
    class Options(BaseModel):
        declared: Safe[int] = 1
        undeclared: str = ""

    found = {key: effect_of(Options, key) for key in ("declared", "undeclared", "unknown")}
    assert found == {"declared": "safe", "undeclared": "unclassified", "unknown": "unclassified"}


# -- before and after trust ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "key"), SENSITIVE)
def test_a_sensitive_setting_needs_trust(project: Path, backend: str, key: str) -> None:
    value = "${VALUE}" if is_secret_name(key) else "x"  # a secret cannot be written out
    project.write_text(f'# a comment\n[backends.{backend}]\n{key} = "{value}"\n')
    problem = problem_of(project, backend, {"VALUE": "x"})
    assert (problem.code, problem.file, problem.line) == ("untrusted", str(project), 3)
    assert problem.field == f"backends.{backend}.{key}"
    assert f"cloudtune config trust {project}" in str(problem.fix)
    trust(project, project.read_bytes())
    assert load_config(project.parent, environ={"VALUE": "x"}).settings(backend)[key] == "x"


@pytest.mark.parametrize(("backend", "key"), [pair for pair in FIELDS if pair not in SENSITIVE])
def test_a_safe_setting_takes_effect_unless_it_reads_secrets(project: Path, backend: str, key: str) -> None:
    project.write_text(f'[backends.{backend}]\n{key} = "x"\n')
    assert load_config(project.parent, environ={}).settings(backend)[key] == "x"
    project.write_text(f'[backends.{backend}]\n{key} = ["${{AWS_SECRET_ACCESS_KEY}}"]\n')
    problem = problem_of(project, backend, {"AWS_SECRET_ACCESS_KEY": "hunter2"})
    assert "reads the environment" in problem.message


def test_trust_ends_with_any_change_and_is_bound_to_the_path(project: Path, tmp_path: Path) -> None:
    project.write_text('[backends.local]\npython = "./a"\n')
    trust(project, project.read_bytes())
    assert load_config(project.parent, environ={}).pending == ()
    project.write_text('[backends.local]\npython = "./b"\n')
    assert problem_of(project).field == "backends.local.python"
    project.write_text('[backends.local]\npython = "./a"\n')
    assert is_trusted(project, project.read_bytes())
    assert not is_trusted(tmp_path / "other.toml", project.read_bytes())
    assert untrust(project)
    assert not untrust(project)
    assert problem_of(project).line == 2


def test_the_record_of_trust_is_private(project: Path, tmp_path: Path) -> None:
    project.write_text('ledger = "l.db"\n')
    trust(project, project.read_bytes())
    (record,) = (path for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.parent.stat().st_mode & 0o777 == 0o700


def test_a_profile_of_the_project_needs_trust_too(project: Path) -> None:
    project.write_text(
        'profile = "p"\n[profiles.p]\nledger = "/tmp/l.db"\n[profiles.p.backends.local]\npython = "./e"\n'
    )
    config = load_config(project.parent, environ={})
    assert [problem.field for problem in config.pending] == ["profiles.p.ledger", "profiles.p.backends.local.python"]
    assert problem_of(project).field == "backends.local.python"
    with pytest.raises(ConfigError, match="not trusted"):
        _ = config.ledger


def test_what_the_user_says_wins_over_what_is_not_trusted(project: Path) -> None:
    project.write_text('ledger = "/tmp/l.db"\n[backends.local]\npython = "./evil"\n')
    environ = {"CLOUDTUNE_BACKENDS__LOCAL__PYTHON": "/usr/bin/python3"}
    config = load_config(project.parent, environ=environ, flags={"ledger": "mine.db"})
    assert (config.settings("local")["python"], config.ledger) == ("/usr/bin/python3", "mine.db")


@pytest.mark.parametrize(("backend", "key"), ENDPOINTS)
def test_an_endpoint_takes_no_reference_from_any_file(project: Path, tmp_path: Path, backend: str, key: str) -> None:
    text = f'[backends.{backend}]\n{key} = "${{AWS_SECRET_ACCESS_KEY}}"\n'
    for file in (project, tmp_path / "user.toml"):
        file.write_text(text)
        trust(file, text.encode())
        problem = problem_of(project, backend, {"AWS_SECRET_ACCESS_KEY": "hunter2"})
        assert (problem.code, problem.file, problem.line) == ("url_reference", str(file), 2)
        file.unlink()


@pytest.mark.parametrize("value", ["http://h/${X}", "https://${X}.h/", "${X:-http://h}", "s3://${X}/", "a://b?c=${X}"])
def test_no_url_takes_a_reference(project: Path, value: str) -> None:
    project.write_text(f'[backends.local]\ngrace = ["{value}"]\n')
    with pytest.raises(ConfigError, match="cannot contain"):
        load_config(project.parent, environ={"X": "x"})


# -- which file counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o646, 0o666, 0o606])
def test_a_file_that_others_can_write_is_refused(project: Path, mode: int) -> None:
    project.write_text('backend = "local"\n')
    project.chmod(mode)
    with pytest.raises(ConfigError, match="other users can change it") as refused:
        load_config(project.parent, environ={})
    assert refused.value.problems[0].fix == f"chmod go-w {project}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_group_and_owner_of_the_file_are_checked(project: Path) -> None:
    project.write_text('backend = "local"\n')
    project.chmod(0o664)
    os.chown(project, 0, 54321)
    with pytest.raises(ConfigError, match="other users can change it"):
        load_config(project.parent, environ={})
    os.chown(project, 0, 0)  # root's own group, and nobody else is in it
    assert load_config(project.parent, environ={}).backend == "local"
    os.chown(project, 54321, 0)
    with pytest.raises(ConfigError, match="belongs to another user"):
        load_config(project.parent, environ={})


def test_links_pipes_and_folders_are_refused(project: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.toml"
    target.write_text('backend = "local"\n')
    project.symlink_to(target)
    with pytest.raises(ConfigError, match="symbolic link"):
        load_config(project.parent, environ={})
    project.unlink()
    os.mkfifo(project)  # opening it must not wait
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(project.parent, environ={})
    project.unlink()
    project.mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(project.parent, environ={})


def test_a_parent_of_the_repository_is_not_asked(project: Path, tmp_path: Path) -> None:
    (tmp_path / "cloudtune.toml").write_text('backend = "openai"\n')
    below = project.parent / "a" / "b"
    below.mkdir(parents=True)
    assert load_config(below, environ={}).files == ()
    project.write_text('backend = "bedrock"\n')
    assert load_config(below, environ={}).backend == "bedrock"
    (below.parent / ".git").write_text("gitdir: elsewhere\n")  # as a submodule or a worktree has it
    assert load_config(below, environ={}).files == ()


def test_without_a_repository_only_the_folder_itself_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, "user_file", lambda: tmp_path / "user.toml")
    (tmp_path / "deep").mkdir()
    (tmp_path / "cloudtune.toml").write_text('backend = "openai"\n')
    assert load_config(tmp_path / "deep", environ={}).files == ()
    assert load_config(tmp_path, environ={}).backend == "openai"
