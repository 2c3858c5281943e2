"""The page in a real browser: it requests nothing, works by keyboard, and text from rows in it does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.report.chromium import CHROMIUM, LIMIT_S, Browser
from tests.unit.report.conftest import evaluation_of, labeled, with_curves

from cloudtune.report import markup, page
from cloudtune.report.page import LARGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.job import Job

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
    pytest.mark.timeout(2 * LIMIT_S),
]

ACTS = [
    "</script><script>document.title = 'owned'</script>",
    "<img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">",
]
HOSTILE = [
    *ACTS, "\"><svg onload=\"document.title='owned'\">", "<style>@import 'http://127.0.0.1:9/y';</style>",
    "' onmouseover=alert(1) autofocus onfocus=\"document.title='owned'\" x='", "<!-- </td></tr></table> -->",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>", "<a href=javascript:document.title='owned'>x</a>",
    "\u202eright to left", "\x00\x1b[31m\ud800", "&lt;b&gt;", "<details open ontoggle=\"document.title='owned'\">",
    "`${document.title='owned'}`", "line\nline\r\n\ttab",
]  # fmt: skip
CONTRAST = r"""(() => {
  const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((under, [r, g, b, a = 1]) =>
      [r, g, b].map((v, i) => v * a + under[i] * (1 - a)), [255, 255, 255]);
  };
  const low = new Set();
  for (const element of document.body.querySelectorAll("*")) {
    if (![...element.childNodes].some(one => one.nodeType === 3 && one.data.trim())) continue;
    if (["SCRIPT", "STYLE", "OPTION", "title"].includes(element.tagName) || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(parse(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
    if (ratio < 4.5) low.add(`${element.outerHTML.slice(0, 80)} ${ratio.toFixed(2)}`);
  }
  return [...low];
})()"""
ROWS = "[...document.querySelectorAll('#compared tbody tr')]"
SHOWN = f"{ROWS}.filter(row => !row.hidden)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def written(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(with_curves(job.report(evaluation=labeled(60))).html(), encoding="utf-8")
    return file


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_requests_nothing_and_is_readable(browser: Browser, written: Path, width: int, dark: bool) -> None:
    with browser.open(written, width=width, dark=dark) as page:
        assert page.requests() == []
        assert page.errors() == []
        assert page.run(CONTRAST) == []
        assert page.run("document.documentElement.scrollWidth") <= width
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") is not dark


def test_tables_are_sorted_by_keyboard(browser: Browser, written: Path) -> None:
    lines = f"{ROWS}.slice(0, 3).map(row => row.cells[1].textContent)"
    head = "document.querySelectorAll('#compared thead th')[1].getAttribute('aria-sort')"
    with browser.open(written) as page:
        before = page.run(lines)
        page.run("document.querySelectorAll('#compared th button')[0].focus()")
        page.press("Tab")  # to the next header
        assert page.run("document.activeElement.textContent") == "Line"
        page.press("Enter")
        assert (page.run(head), page.run(lines)) == ("ascending", ["1", "2", "3"])
        page.press("Enter")
        assert (page.run(head), page.run(lines)) == ("descending", ["60", "59", "58"])
        assert before not in (["1", "2", "3"], ["60", "59", "58"])
        assert page.run("document.querySelectorAll('#compared [aria-sort]').length") == 1
        assert page.errors() == []


def test_numbers_are_sorted_by_value(browser: Browser, job: Job, tmp_path: Path) -> None:
    expected = [str(number) for number in range(1, 9)]
    tuned, base = ["2", "3", "4", "5", *expected[4:]], ["2", *expected[1:]]
    found = evaluation_of(expected, tuned, base, task="numbers", metrics=("mean_absolute_error",))
    file = tmp_path / "report.html"
    file.write_text(job.report(evaluation=found).html(), encoding="utf-8")
    rows = "[...document.querySelector('#result table').tBodies[0].rows]"
    values = f"{rows}.map(row => parseFloat(row.cells[1].textContent))"
    with browser.open(file) as page:
        page.run("document.querySelectorAll('#result thead button')[1].click()")
        assert page.run(values) == [0.125, 0.5, 7]
        page.run("document.querySelectorAll('#result thead button')[1].click()")
        assert page.run(values) == [7, 0.5, 0.125]


def test_rows_are_filtered_by_keyboard(browser: Browser, written: Path) -> None:
    changes = f"[...new Set({SHOWN}.map(row => row.dataset.change))]"
    count = "document.getElementById('count').textContent"
    with browser.open(written) as page:
        assert page.run(count) == "60 of 60 matching rows shown (60 in all)"
        page.run("document.getElementById('change').focus()")
        page.press("ArrowDown")
        assert page.run(changes) == ["worse"]
        page.press("ArrowDown")
        assert page.run(changes) == ["better"]
        page.press("Tab")
        for character in "message 1":
            page.press(character)
        shown = page.run(f"{SHOWN}.length")
        assert 0 < shown < 60
        assert page.run(count).startswith(f"{shown} of {shown} matching rows")


@pytest.mark.parametrize("width", [1400, 390])
def test_tables_and_charts_have_names_for_screen_readers(browser: Browser, written: Path, width: int) -> None:
    with browser.open(written, width=width) as page:
        named: dict[str, list[str]] = {}
        for node in page.call("Accessibility.getFullAXTree")["nodes"]:
            named.setdefault(node.get("role", {}).get("value", ""), []).append(node.get("name", {}).get("value", ""))
        assert all(named["table"])
        assert all(named["region"])
        assert len(named["columnheader"]) > 20
        assert len(named["rowheader"]) > 60
        assert any(name.startswith("loss: train 1.818 at step 1") for name in named["image"])
        assert named["heading"][:2] == ["small-0", "Result"]
        focused = "[...document.querySelectorAll('a, button, select, input, [tabindex]')]"
        assert page.run(f"{focused}.every(one => one.tabIndex === 0)"), "the focus follows the order of the page"


def test_the_page_prints_all_sections(browser: Browser, written: Path) -> None:
    with browser.open(written, dark=True) as page:
        assert page.pdf().startswith(b"%PDF")
        page.call("Emulation.setEmulatedMedia", media="print")
        assert page.run("getComputedStyle(document.getElementById('filter')).display") == "none"
        assert page.run("[...document.querySelectorAll('section')].every(one => one.getClientRects().length)")
        assert page.run(CONTRAST) == []


def test_of_2000_rows_100_are_laid_out(browser: Browser, job: Job, tmp_path: Path) -> None:
    """They cost Chromium 0.3 s of processor time more than 60 rows."""
    file = tmp_path / "report.html"
    prompt = "Message {}: where is my order? It was promised for last week, and nobody can say where it is now. " * 2
    text = job.report(evaluation=labeled(2000, prompt=prompt)).html()
    file.write_text(text, encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert (text.count("<tr data-change"), text.count('" hidden><th')) == (2000, 1900)
    with browser.open(file) as page:
        assert (page.run(f"{ROWS}.length"), page.run(f"{SHOWN}.length")) == (2000, 100)
        page.run("document.getElementById('more').click()")
        assert page.run(f"{SHOWN}.length") == 200
        page.run("document.querySelectorAll('#compared th button')[1].click()")
        assert page.run(f"{SHOWN}[199].cells[1].textContent") == "200"


def hostile_page(job: Job, file: Path, texts: list[str]) -> Path:
    evaluation = evaluation_of(texts, texts[1:] + texts[:1], texts, texts, name=texts[0])
    file.write_text(job.report(evaluation=evaluation).html(), encoding="utf-8")
    return file


def test_hostile_rows_do_nothing(browser: Browser, job: Job, tmp_path: Path) -> None:
    with browser.open(hostile_page(job, tmp_path / "report.html", HOSTILE)) as page:
        page.run("document.querySelectorAll('#compared th button')[2].click()")
        assert page.requests() == []
        assert page.errors() == []
        assert "owned" not in page.run("document.title")
        assert not page.run("document.querySelector('img, iframe, td svg:not(.interval), td a, td style, td script')")
        attributes = "[...document.querySelectorAll('*')].flatMap(one => one.getAttributeNames())"
        assert not page.run(f"{attributes}.some(name => name.startsWith('on'))")
        shown = page.run("document.getElementById('compared').textContent")
    assert all(text in shown for text in HOSTILE if text.isprintable())
    assert "\\u202eright to left" in shown


def test_without_escaping_hostile_rows_act(
    browser: Browser, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the browser reports it, and the content policy alone stops it too."""
    monkeypatch.setattr(markup, "escape", lambda text: text)
    with browser.open(hostile_page(job, tmp_path / "report.html", ACTS)) as with_policy:
        assert "Content Security Policy" in str(with_policy.errors())
        assert "owned" not in with_policy.run("document.title")
    monkeypatch.setattr(page, "policy", lambda *_: "")
    with browser.open(hostile_page(job, tmp_path / "report.html", ACTS)) as unprotected:
        assert unprotected.run("document.title") == "owned"
        assert any("127.0.0.1:9" in address for address in unprotected.requests())
