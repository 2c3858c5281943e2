"""The pages of `data profile` and `data preview` with hostile rows: markup in a row is text, and no script can run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import cloudtune.data
from cloudtune.data.write.pages import script_safe

HOSTILE = (
    "<!--<script>", "<!--<script>alert(1)", "</script><script>document.title='owned'</script>", "</SCRIPT >",
    "--><img src=x onerror=\"document.title='owned'\">", "<![CDATA[", "]]>", "</style><svg onload=alert(1)>",
    "\u2028\u2029&lt;/script&gt;", "'\"><iframe srcdoc='<script>parent.document.title=1</script>'>", "{{7*7}}",
    "<base href=//evil.example/>", "<meta http-equiv=refresh content='0;url=//evil.example'>",
)  # fmt: skip
ELEMENTS = {
    "data profile": {"html", "meta", "title", "style", "h1", "div", "b", "p", "code", "h2", "table", "tr", "th", "td",
                     "svg", "text", "rect", "script"},
    "data preview": {"html", "meta", "title", "style", "h1", "p", "span", "h2", "pre"},
}  # fmt: skip
WRITTEN = {
    "data profile": ["profile", "{rows}", "--out", "{page}"],
    "data preview": ["preview", "{rows}", "-n", "99", "--html", "{page}"],
}


class Parser(HTMLParser):
    """What a browser would make of the page: its elements, its attributes and the text in scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.scripts: list[str] = []
        self._in: str = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


def page(command: str, folder: Path) -> str:
    rows = folder / "<!--<script>.jsonl"
    lines = [{"prompt": text, "completion": text, text.replace('"', ""): text} for text in HOSTILE]
    lines += [{"messages": [{"role": "user", "content": text}, {"role": text, "content": text}]} for text in HOSTILE]
    lines += [{"prompt": f"{text}?", "completion": text} for text in HOSTILE] * 2
    good = lines if command == "data profile" else lines[-len(HOSTILE) :]
    rows.write_text("".join(json.dumps(line) + "\n" for line in good), encoding="utf-8")
    out = folder / "page.html"
    words = [word.format(rows=rows, page=out) for word in WRITTEN[command]]
    done = subprocess.run(
        [sys.executable, "-m", "cloudtune", "data", *words], check=False, capture_output=True, text=True
    )
    assert out.is_file(), done.stderr
    return out.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ELEMENTS)
def test_a_page_of_hostile_rows_holds_only_its_own_elements(command: str, tmp_path: Path) -> None:
    text = page(command, tmp_path)
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert parser.elements <= ELEMENTS[command]
    assert not [name for _, name, _ in parser.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert "<!--" not in text
    (policy,) = [
        value for tag, name, value in parser.attributes if tag == "meta" and name == "content" and "src" in str(value)
    ]
    assert str(policy).startswith("default-src 'none'; style-src 'sha256-")
    for script in parser.scripts:
        report = json.loads(script)
        assert any(text in json.dumps(report, ensure_ascii=False) for text in ("<!--<script>", "{{7*7}}"))


def test_every_place_that_makes_html_is_tested_here() -> None:
    root = Path(cloudtune.data.__file__).parent.parent
    makers = {file.stem for file in root.rglob("*.py") if re.search("<html[ >]", file.read_text(encoding="utf-8"))}
    reports = {"page"}  # tests/unit/report/test_browser.py
    assert makers == {command.split()[1] for command in ELEMENTS} | reports


@pytest.mark.parametrize("text", HOSTILE)
def test_json_in_a_script_is_the_same_json_without_markup(text: str) -> None:
    document = json.dumps({text: [text]}, ensure_ascii=False)
    safe = script_safe(document)
    assert json.loads(safe) == json.loads(document)
    assert not set("<>&\u2028\u2029") & set(safe)
