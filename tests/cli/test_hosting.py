"""deploy, deployments and undeploy over the scripted vendor: what each prints, asks, and how it exits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cloudtune.state import JobRef
from cloudtune.testing import faults

if TYPE_CHECKING:
    from tests.cli.conftest import Desk


def trained(desk: Desk) -> str:
    done = desk.run("run", "job.yaml", "--yes")
    assert done.code == 0, done.err
    return done.out.strip()


def standing(desk: Desk) -> list[str]:
    """Names, in the vendor's own store."""
    return [row["name"] for row in desk.vendor.store.rows("SELECT name FROM deployments")]


def test_a_model_is_deployed_asked_listed_and_taken_down(desk: Desk) -> None:
    ref = trained(desk)
    made = desk.run("deploy", ref, "--yes")
    assert made.code == 0, made.err
    name = made.out.strip()
    assert standing(desk) == [name]
    for words in (f"Plan to deploy {name} on scripted", "[call: idempotent by request token]", "token ",
                  "Cost: unknown; deployments may be billed by the hour, even when idle", "ready; next:",
                  f"cloudtune generate {ref}", f"cloudtune undeploy {name} --backend scripted"):  # fmt: skip
        assert words in made.err
    assert "method" not in made.err
    assert desk.run("generate", ref, "abc").out.startswith("cba says ")
    listed = desk.run("deployments")
    assert listed.out.splitlines()[0].split() == [
        "ID", "STATE", "CREATED", "PER", "HOUR", "SO", "FAR", "BACKEND", "MODEL",
    ]  # fmt: skip
    assert listed.out.splitlines()[1].split()[:2] == [name, "ready"]
    assert " ago " in listed.out
    assert desk.run("deployments", "-q").out == f"{name}\n"
    gone = desk.run("undeploy", name, "--yes")
    assert (gone.code, gone.out) == (0, f"{name}\n")
    assert standing(desk) == []
    assert desk.run("deployments").out == ""
    assert "no deployments" in desk.run("deployments").err
    assert desk.run("jobs", "-q").out.strip() == ref


def test_under_json_each_is_one_object(desk: Desk) -> None:
    ref = trained(desk)
    made = desk.run("deploy", ref, "--name", "mine", "--yes", "--json").json
    assert (made["schema_version"], made["id"], made["state"], made["ref"]) == (1, "mine", "ready", ref)
    listed = desk.run("deployments", "--backend", "scripted", "--json").json
    assert [one["id"] for one in listed["deployments"]] == ["mine"]
    assert listed["unanswered"] == {}
    removed = desk.run("undeploy", "mine", "--yes", "--json").json
    assert (removed["id"], removed["removed"]) == ("mine", True)


def test_deployed_twice_is_one_and_deployed_after_removal_is_another(desk: Desk) -> None:
    ref = trained(desk)
    first = desk.run("deploy", ref, "--yes")
    again = desk.run("deploy", ref, "--yes")
    assert again.out == first.out
    assert "found" in again.err
    assert desk.vendor.calls("create_deployment") == 1
    assert desk.run("undeploy", first.out.strip(), "--yes").code == 0
    assert desk.run("deploy", ref, "--yes").out == first.out
    assert standing(desk) == [first.out.strip()]


@pytest.mark.parametrize("command", ["deploy", "undeploy"])
def test_nobody_to_ask_means_no(desk: Desk, command: str) -> None:
    ref = trained(desk)
    if command == "undeploy":
        desk.run("deploy", ref, "--name", "mine", "--yes")
    held = standing(desk)
    refused = desk.run(command, ref if command == "deploy" else "mine")
    assert refused.code == 7
    assert "--yes" in refused.err
    assert standing(desk) == held


def test_what_cannot_be_deployed_is_told(desk: Desk) -> None:
    ref = trained(desk)
    wrong = desk.run("deploy", ref, "--option", "capacity=3", "--option", "sku=x", "--yes")
    assert wrong.code == 2
    assert "capacity" in wrong.err
    assert "sku" in wrong.err
    both = desk.run("deploy", ref, "--option", "capacity", "--option", "=3", "--yes")
    assert both.code == 2
    assert both.err.count("KEY=VALUE") == 2
    local = desk.run("deploy", str(JobRef(backend="local", scope=str(desk.folder), id="job-1")), "--yes")
    assert local.code == 2
    assert "local cannot deploy models: " in local.err
    assert standing(desk) == []


def test_what_is_gone_already_is_taken_down(desk: Desk) -> None:
    name = desk.run("deploy", trained(desk), "--yes").out.strip()
    desk.run("undeploy", name, "--yes")
    again = desk.run("undeploy", name, "--yes")
    assert (again.code, again.out) == (0, f"{name}\n")
    assert "no longer exists" in again.err
    assert desk.run("undeploy", name, "--yes", "--json").json["already"] is True
    desk.vendor.fail("list_deployments", faults.forbidden(times=9))
    assert desk.run("undeploy", name, "--yes").code == 2, "who is not asked cannot say that it is gone"


def test_an_unknown_deployment_is_told_with_who_did_not_answer(desk: Desk) -> None:
    trained(desk)
    unknown = desk.run("undeploy", "nothing", "--yes")
    assert unknown.code == 2
    assert "no deployment named 'nothing'" in unknown.err
    desk.vendor.fail("list_deployments", faults.forbidden(times=9))
    silent = desk.run("undeploy", "nothing", "--yes")
    assert silent.code == 2
    assert "scripted did not respond" in silent.err
    listed = desk.run("deployments")
    assert listed.code == 0
    assert "deployments of scripted are not listed: " in listed.err
    assert desk.run("deployments", "--backend", "scripted").code == 2


def test_after_success_only_what_the_back_end_can_do_is_named(desk: Desk) -> None:
    done = desk.run("run", "job.yaml", "--yes")
    ref = done.out.strip()
    for reported in (done.err, desk.run("show", ref).err):
        assert f"cloudtune deploy {ref}" in reported
        assert f"cloudtune generate {ref}" in reported
        assert "export" not in reported


def test_sweep_deletes_what_is_past_its_time_to_live(desk: Desk) -> None:
    ref = trained(desk)
    name = desk.run("deploy", ref, "--yes", "--ttl", "1h").out.strip()
    assert "its time to live ends at" in desk.run("deployments").err
    assert "nothing is past" in desk.run("sweep", "--apply").err
    assert desk.run("deploy", ref, "--yes", "--ttl", "1s").out.strip() == name
    time.sleep(1.1)
    dry = desk.run("sweep")
    assert name in dry.out
    assert "cloudtune sweep --apply" in dry.err
    desk.vendor.fail("delete_deployment", faults.forbidden())
    refused = desk.run("sweep", "--apply")
    assert (refused.code, refused.out) == (1, "")
    assert f"{name} on scripted is not deleted" in refused.err
    assert standing(desk) == [name]
    assert desk.run("sweep", "--apply", "--json").json["removed"] == [name]
    assert standing(desk) == []
    assert "nothing is past" in desk.run("sweep").err
