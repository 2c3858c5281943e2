"""Configuration: which value wins, where it came from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.config import config as config_module
from cloudtune.config.config import Config, load_config
from cloudtune.config.trust import trust
from cloudtune.errors import ConfigError, Problem


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


class Place:
    """A project with a subfolder that one works in, and a user's own file."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root.resolve()
        self.work = self.root / "project" / "deep" / "down"
        self.work.mkdir(parents=True)
        (self.root / "project" / ".git").mkdir()
        self.project = self.root / "project" / "cloudtune.toml"
        self.user = self.root / "user" / "config.toml"
        self.state = self.root / "state"
        self.user.parent.mkdir()
        monkeypatch.setattr(config_module, "user_file", lambda: self.user)
        monkeypatch.setattr("platformdirs.user_state_dir", lambda *_, **__: str(self.state))

    def load(self, project: str = "", user: str = "", environ: dict[str, str] | None = None, *, is_trusted: bool = True,
             **options: Any) -> Config:  # fmt: skip
        for file, text in ((self.project, project), (self.user, user)):
            file.unlink(missing_ok=True)
            if text:
                file.write_text(text)
        if project and is_trusted:
            trust(self.project, self.project.read_bytes())
        return load_config(self.work, environ=environ or {}, **options)

    def refused(self, project: str = "", user: str = "", **options: Any) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as caught:
            self.load(project, user, **options)
        return caught.value.problems


# -- which value wins ----------------------------------------------------------------------------------------------


def test_without_anything_the_defaults_hold(place: Place) -> None:
    config = place.load()
    assert (config.backend, config.profile, config.files) == ("local", None, ())
    assert config.ledger == f"sqlite:///{place.state}/ledger.db"
    assert config.settings("local") == {"root": str(place.state / "runs")}
    assert {source for _, _, source in config.shown()} == {"default"}
    assert config.insisted_backend is None


def test_the_order_of_precedence_whole(place: Place) -> None:
    """Each layer is taken away in turn, from the strongest on; the next one then wins."""
    user = 'backend = "u"\n[profiles.p]\nbackend = "up"\n'
    project = 'backend = "p"\n[profiles.p]\nbackend = "pp"\n'
    without = 'backend = "p"\n[profiles.p]\n'
    env, flags = {"CLOUDTUNE_BACKEND": "e"}, {"backend": "f"}
    seen = [
        place.load(project, user, env, profile="p", flags=flags).backend,
        place.load(project, user, env, profile="p", flags={"backend": None}).backend,
        place.load(project, user, profile="p").backend,
        place.load(without, user, profile="p").backend,
        place.load(project, user).backend,
        place.load("", user).backend,
        place.load().backend,
    ]
    assert seen == ["f", "e", "pp", "up", "p", "u", "local"]


@settings(deadline=None)
@given(st.sets(st.sampled_from(["flag", "env", "project profile", "user profile", "project", "user"])))
def test_the_strongest_of_any_layers_wins(layers: set[str]) -> None:
    import tempfile

    order = ["flag", "env", "project profile", "user profile", "project", "user"]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        place = Place(Path(folder), patch)

        def file(name: str) -> str:
            top = f'ledger = "{name}"\n' if name in layers else ""
            return f"{top}[profiles.p]\n" + (f'ledger = "{name} profile"\n' if f"{name} profile" in layers else "")

        environ = {"CLOUDTUNE_PROFILE": "p"} | ({"CLOUDTUNE_LEDGER": "env"} if "env" in layers else {})
        flags = {"ledger": "flag"} if "flag" in layers else {}
        config = place.load(file("project"), file("user"), environ, flags=flags)
        best = next((name for name in order if name in layers), f"sqlite:///{place.state}/ledger.db")
        assert config.ledger == best


def test_settings_of_all_layers_are_joined_key_by_key(place: Place) -> None:
    config = place.load(
        "[backends.local]\nslots = 2\ngrace = 5\n[profiles.fast.backends.local]\nslots = 8\n",
        '[backends.local]\nroot = "/srv/runs"\npython = "/usr/bin/python3"\n',
        {"CLOUDTUNE_BACKENDS__LOCAL__PYTHON": "/opt/python"},
        profile="fast",
    )
    assert config.settings("local") == {"slots": 8, "grace": 5, "root": "/srv/runs", "python": "/opt/python"}
    assert config.source("backends", "local", "slots") == f"{place.project}:5 (profile fast)"
    assert config.source("backends", "local", "grace") == f"{place.project}:3"
    assert config.source("backends", "local", "root") == f"{place.user}:2"
    assert config.source("backends", "local", "python") == "CLOUDTUNE_BACKENDS__LOCAL__PYTHON"


def test_a_plain_value_hides_a_table_of_a_weaker_layer(place: Place) -> None:
    config = place.load(
        "[backends.local]\na = {x = 1, y = 2}\nb = 1\n", "[backends.local]\na = 3\nb = {x = 1}\n",
        {"CLOUDTUNE_BACKENDS__LOCAL__A": "all"},
    )  # fmt: skip
    settings = config.settings("local")
    assert (settings["a"], settings["b"]) == ("all", 1)


def test_the_nearest_project_file_is_the_one(place: Place) -> None:
    nearer = place.work.parent / "cloudtune.toml"
    nearer.write_text('ledger = "near"\n')
    trust(nearer, nearer.read_bytes())
    config = place.load('ledger = "far"\nbackend = "far"\n')
    assert (config.ledger, config.backend, config.files) == ("near", "local", (nearer,))


def test_the_profile_may_come_from_anywhere(place: Place) -> None:
    profiles = '[profiles.a]\nbackend = "a"\n[profiles.b]\nbackend = "b"\n[profiles.c]\nbackend = "c"\n'
    assert place.load(f'profile = "a"\n{profiles}').backend == "a"
    assert place.load(f'profile = "a"\n{profiles}', environ={"CLOUDTUNE_PROFILE": "b"}).backend == "b"
    chosen = place.load(f'profile = "a"\n{profiles}', environ={"CLOUDTUNE_PROFILE": "b"}, profile="c")
    assert (chosen.backend, chosen.profile, chosen.profiles) == ("c", "c", ("a", "b", "c"))


@pytest.mark.parametrize(
    ("project", "options", "insisted"),
    [
        ('backend = "local"\n', {}, None),
        ("", {"flags": {"backend": "openai"}}, "openai"),
        ("", {"environ": {"CLOUDTUNE_BACKEND": "openai"}}, "openai"),
    ],
)
def test_only_flag_and_environment_win_over_a_spec(
    place: Place, project: str, options: dict[str, Any], insisted: str | None
) -> None:
    assert place.load(project, **options).insisted_backend == insisted


# -- where things lie ----------------------------------------------------------------------------------------------


def test_a_home_moves_ledger_and_runs(place: Place) -> None:
    config = place.load(environ={"CLOUDTUNE_HOME": "/srv/ct"})
    assert (config.ledger, config.settings("local")) == ("sqlite:////srv/ct/ledger.db", {"root": "/srv/ct/runs"})


def test_with_a_ledger_elsewhere_the_back_end_chooses_its_own_root(place: Place) -> None:
    assert place.load(flags={"ledger": "sqlite:////elsewhere/l.db"}).settings("local") == {}


def test_relative_paths_in_settings_count_from_the_file(place: Place) -> None:
    config = place.load('[backends.local]\nroot = "./runs"\nup = "../x"\nhere = "."\nhome = "~/r"\nname = "runs"\n')
    settings = config.settings("local")
    assert settings["root"] == str(place.project.parent / "runs")
    assert settings["up"] == str(place.root / "x")
    assert settings["here"] == str(place.project.parent)
    assert settings["home"] == str(Path.home() / "r")
    assert settings["name"] == "runs"


def test_a_folder_with_odd_characters_survives_the_url(place: Place) -> None:
    from cloudtune.clock import SystemClock
    from cloudtune.ledger.ledger import Ledger

    config = place.load(environ={"CLOUDTUNE_HOME": str(place.root / "50% o? #1")})
    assert Ledger.open(config.ledger, SystemClock()).folder == place.root / "50% o? #1"


# -- references ----------------------------------------------------------------------------------------------------


def test_references_are_filled_when_settings_are_asked_for_and_not_before(place: Place) -> None:
    text = '[backends.local]\ntoken = "${TOKEN}"\nfolder = "/${HOST:-localhost}:${PORT:-}/x"\nlist = ["${HOST}"]\n'
    config = place.load(text, environ={"HOST": "h"})
    with pytest.raises(ConfigError) as caught:
        config.settings("local")
    (problem,) = caught.value.problems
    assert (problem.field, problem.line, problem.file) == ("backends.local.token", 2, str(place.project))
    assert "TOKEN is not set" in problem.message
    filled = place.load(text, environ={"HOST": "h", "TOKEN": "t"}).settings("local")
    assert (filled["token"], filled["folder"], filled["list"]) == ("t", "/h:/x", ["h"])


def test_an_empty_variable_is_as_good_as_none(place: Place) -> None:
    config = place.load('[backends.local]\na = "${A:-fine}"\nb = "${A}"\n', environ={"A": ""})
    with pytest.raises(ConfigError, match="A is not set"):
        config.settings("local")
    assert place.load('[backends.local]\na = "${A:-fine}"\n', environ={"A": ""}).settings("local")["a"] == "fine"


def test_every_variable_that_is_not_set_is_told_at_once(place: Place) -> None:
    config = place.load('[backends.local]\na = "${A}${B}"\nb = "${C:-fine}"\nsecret = "${D}"\n')
    with pytest.raises(ConfigError) as caught:
        config.settings("local")
    assert [problem.message.split()[3] for problem in caught.value.problems] == ["A", "B", "D"]
    fixes = [problem.fix for problem in caught.value.problems]
    assert ":-default" in str(fixes[0])
    assert ":-default" not in str(fixes[2])  # a default would be a secret written out


def test_other_back_ends_references_do_not_matter(place: Place) -> None:
    config = place.load('[backends.local]\nslots = 1\n[profiles.x.backends.local]\ntoken = "${NOPE}"\n')
    assert config.settings("local")["slots"] == 1


def test_what_the_environment_says_is_meant_as_it_is(place: Place) -> None:
    config = place.load(environ={"CLOUDTUNE_BACKENDS__LOCAL__NAME": "${HOME}", "HOME": "/root"})
    assert config.settings("local")["name"] == "${HOME}"


def test_a_ledger_takes_no_reference(place: Place) -> None:
    (problem,) = place.refused('ledger = "${WHERE}"\n', environ={"WHERE": "/srv/l.db"})
    assert (problem.code, problem.line) == ("url_reference", 1)


# -- what is refused -----------------------------------------------------------------------------------------------


def test_every_fault_of_every_file_is_told_at_once(place: Place) -> None:
    problems = place.refused(
        'backend = 3\nlegder = "x"\n[backends.locl]\nroot = "./r"\n[profiles.prod]\nbackens = 3\n'
        '[backends.local]\napi_key = "abc"\n[profiles.prod.backends.local]\nclient_secret = "${A:-abc}"\n',
        'ledger = "postgresql://u:pw@h/d"\nprofiles = {x = 3}\n',
    )
    found = {(problem.file, problem.line, problem.field) for problem in problems}
    project, user = str(place.project), str(place.user)
    assert found == {
        (project, 1, "backend"), (project, 2, "legder"), (project, 3, "backends.locl"),
        (project, 6, "profiles.prod.backens"), (project, 8, "backends.local.api_key"),
        (project, 10, "profiles.prod.backends.local.client_secret"), (user, 1, "ledger"), (user, 2, "profiles.x"),
    }  # fmt: skip
    fixes = {problem.field: problem.fix or "" for problem in problems}
    assert "ledger" in fixes["legder"]
    assert "local" in fixes["backends.locl"]
    assert 'api_key = "${API_KEY}"' in fixes["backends.local.api_key"]


@pytest.mark.parametrize(
    "text",
    ["backend = ", "[[backends]]\nx = 1\n", "backends = 3\n", "profiles = []\n", 'a = "\\uD800"\n', 'profile = ""\n',
     "backend = true\n"],
)  # fmt: skip
def test_broken_files_are_config_errors(place: Place, text: str) -> None:
    problems = place.refused(text)
    assert all(problem.file == str(place.project) for problem in problems)


def test_a_file_that_is_not_utf8(place: Place) -> None:
    place.project.write_bytes(b'backend = "\xff"\n')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(place.work, environ={})


def test_an_unknown_profile_is_answered_with_the_nearest(place: Place) -> None:
    (problem,) = place.refused("[profiles.production]\n", profile="prodution")
    assert (problem.file, problem.fix) == ("--profile", "did you mean production?")
    (problem,) = place.refused("", environ={"CLOUDTUNE_PROFILE": "x"})
    assert problem.file == "CLOUDTUNE_PROFILE"


@pytest.mark.parametrize(
    ("key", "value", "is_refused"),
    [
        ("api_key", "abc", True), ("api-key", "abc", True), ("apiKey", "abc", True), ("token", "abc", True),
        ("client_secret", "x", True), ("secret_access_key", "x", True), ("password", "x", True),
        ("passphrase", "x", True), ("anything", "sk-abcdefghijklmnopqrstuvwx", True),
        ("anything", "AKIAIOSFODNN7EXAMPLE", True), ("endpoint", "https://me:pw@host/", True),
        ("api_key", "Bearer ${KEY}", True), ("api_key", "${KEY:-abc}", True), ("api_key", "${KEY}", False),
        ("kms_key", "arn:aws:kms:1", False),
        ("secret_arn", "arn:aws:1", False), ("max_tokens", "3", False), ("tokenizer", "x", False),
        ("key_file", "/etc/key", False), ("region", "us-east-1", False), ("token", "", False),
    ],
)  # fmt: skip
def test_literal_secrets_are_refused_and_nothing_else(place: Place, key: str, value: str, is_refused: bool) -> None:
    text = f'[backends.local]\n{key} = "{value}"\n'
    if is_refused:
        (problem,) = place.refused(text)
        assert problem.code == "literal_secret"
        assert value not in str(problem)
    else:
        assert place.load(text).entries["backends", "local", key].value == value


# -- what is shown -------------------------------------------------------------------------------------------------


def test_secrets_are_masked_and_references_shown(place: Place) -> None:
    environ = {
        "CLOUDTUNE_BACKENDS__OPENAI__API_KEY": "hush-hush",
        "CLOUDTUNE_LEDGER": "postgresql://me:hush-hush@host/db",
        "CLOUDTUNE_BACKENDS__LOCAL__NOTE": "sk-abcdefghijklmnopqrstuvwx",
        "KEY": "hush-hush",
    }
    config = place.load('[backends.local]\ntoken = "${KEY}"\n', environ=environ)
    shown = {key: value for key, value, _ in config.shown()}
    assert shown["backends.openai.api_key"] == "********"
    assert shown["ledger"] == "postgresql://me:********@host/db"
    assert shown["backends.local.note"] == "********"
    assert shown["backends.local.token"] == "${KEY}"
    assert "hush" not in repr(shown)
    assert "hush" not in repr(config)


def test_variables_that_mean_nothing_are_named(place: Place) -> None:
    config = place.load(
        environ={
            "CLOUDTUNE_BACKED": "x",
            "CLOUDTUNE_BACKENDS__LOCAL": "x",
            "CLOUDTUNE_LEDGER": "",
            "CLOUDTUNE_SERVE_KEY": "x",
        }
    )
    assert config.ignored == ("CLOUDTUNE_BACKED", "CLOUDTUNE_BACKENDS__LOCAL")


def test_reading_the_configuration_writes_nothing(place: Place) -> None:
    before = sorted(place.root.rglob("*"))
    _ = place.load().ledger
    assert sorted(place.root.rglob("*")) == before
