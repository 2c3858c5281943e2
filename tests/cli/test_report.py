"""``cloudtune report``: the file that it writes, in each format, and what it refuses."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.test_evaluate import with_answers

if TYPE_CHECKING:
    from tests.cli.conftest import Desk


@pytest.fixture
def job(desk: Desk) -> str:
    ref = desk.submit()
    desk.finish(ref)
    return ref


def test_the_last_evaluation_of_the_job_is_in_the_report(desk: Desk, job: str) -> None:
    printed = desk.run("evaluate", job, "--data", with_answers(""), "--max-tokens", "200", "--json")
    done = desk.run("report", job, "--json")
    assert done.code == 0, done.err
    assert (done.json["report"], done.json["verdict"]) == ("job-report.html", printed.json["verdict"])
    page = Path("job-report.html")
    assert printed.json["verdict"].partition(": ")[2][1:60] in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    Path("e.json").write_text(printed.out)
    desk.run("report", job, "--evaluation", "e.json", "--format", "json")
    assert json.loads(Path("job-report.json").read_text())["evaluation"]["rows"] == printed.json["rows"]


@pytest.mark.parametrize(("form", "file", "start"), [("html", "job-report.html", "<!doctype html>"),
                                                     ("markdown", "job-report.md", "# job"),
                                                     ("json", "job-report.json", "{")])  # fmt: skip
def test_each_format_has_its_own_file(desk: Desk, job: str, form: str, file: str, start: str) -> None:
    done = desk.run("report", job, "--format", form)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"missing: evaluation: the job has not been evaluated\nwrote {file}\n"
    assert Path(file).read_text().startswith(start)
    Path("folder").mkdir()
    refused = desk.run("report", job, "--format", form, "-o", "folder")
    assert (refused.code, "is not a regular file" in refused.err) == (2, True)
    assert sorted(Path("folder").iterdir()) == []


def test_an_evaluation_of_another_job_is_refused(desk: Desk, job: str) -> None:
    other = desk.submit("--set", "name=other")
    desk.finish(other)
    Path("e.json").write_text(desk.run("evaluate", other, "--data", with_answers(""), "--json").out)
    for file, message in (("e.json", f"is an evaluation of {other}"), ("none.json", "cannot read none.json"),
                          ("rows.jsonl", "is not an evaluation")):  # fmt: skip
        done = desk.run("report", job, "--evaluation", file)
        assert (done.code, message in done.err) == (2, True), done.err
    assert not Path("job-report.html").exists()


def test_the_report_opens_in_the_browser(desk: Desk, job: str) -> None:
    browser = desk.folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{desk.folder}/opened"\n')
    browser.chmod(0o755)
    done = desk.spawn("report", job, "--open", "-q", BROWSER=str(browser))
    assert (done.code, done.err) == (0, "")
    assert (desk.folder / "opened").read_text().strip() == (desk.folder / "job-report.html").as_uri()
