"""A chat template is a program that comes with a model: it gets little time and memory, wherever it is rendered."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune_trainer import template_sandbox
from cloudtune_trainer.template_sandbox import BoundedSandbox

jinja2 = pytest.importorskip("jinja2")
from jinja2.exceptions import SecurityError  # noqa: E402
from jinja2.ext import loopcontrols  # noqa: E402
from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: E402

MESSAGES = [{"role": "user", "content": "a<b>\n c"}, {"role": "assistant", "content": "d"}]
BIG = "{% set b = namespace(s='x' * 1000000) %}"
HOSTILE = {
    "repeat": "{{ 'x' * 10 ** 9 }}",
    "add": BIG + "{% for i in range(40) %}{% set b.s = b.s + b.s %}{% endfor %}",
    "join by ~": BIG + "{% for i in range(40) %}{% set b.s = b.s ~ b.s %}{% endfor %}",
    "set block": BIG + "{% for i in range(40) %}{% set t %}{{ b.s }}{{ b.s }}{% endset %}{% set b.s = t %}{% endfor %}",
    "macro": "{% macro m(t, n) %}{{ m(t ~ t, n - 1) if n else t }}{% endmacro %}{{ m('x' * 100, 40) }}",
    "output": BIG + "{% for i in range(1000) %}{{ b.s }}{% endfor %}",
    "text of a loop": "{% for i in range(99999) %}" + "x" * 5000 + "{% endfor %}",
    "list": "{% set n = namespace(a=[1]) %}{% for i in range(40) %}{% set n.a = n.a + n.a %}{% endfor %}",
    "lists in lists": "{% set n = namespace(a=[1]) %}{% for i in range(40) %}{% set n.a = [n.a, n.a] %}{% endfor %}",
    "dicts in dicts": "{% set n = namespace(a=1) %}{% for i in range(40) %}{% set n.a = {1: n.a, 2: n.a} %}"
    "{% endfor %}",
    "namespaces": "{{ namespace(a=1) }}",
    "replace": BIG + "{{ b.s | replace('x', 'y' * 1000) }}",
    "replace method": BIG + "{{ b.s.replace('', 'y' * 1000) }}",
    "join": BIG + "{{ range(1000) | list | join(b.s) }}",
    "join method": BIG + "{{ b.s.join('y' * 1000) }}",
    "center": "{{ 'x' | center(10 ** 9) }}",
    "ljust": "{{ 'x'.ljust(10 ** 9) }}",
    "zfill": "{{ 'x'.zfill(10 ** 9) }}",
    "expandtabs": "{{ ('\t' * 1000).expandtabs(10 ** 6) }}",
    "translate": BIG + "{{ b.s.translate({120: 'y' * 1000}) }}",
    "indent": "{{ ('\n' * 100000) | indent(10 ** 6) }}",
    "indent by text": "{{ ('\n' * 100000) | indent('x' * 100000) }}",
    "wordwrap": "{{ ('a ' * 100000) | wordwrap(1, wrapstring='x' * 10000) }}",
    "batch": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "slice": "{{ [1] | slice(10 ** 9) | list }}",
    "tojson": "{{ messages | tojson(indent=10 ** 9) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (10 ** 9, 1) }}",
    "format filter": "{{ '%*d' | format(10 ** 9, 1) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "format field": "{{ '{:>{}}'.format(1, 10 ** 9) }}",
    "format map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "mapped filter": "{{ ['x'] | map('center', 10 ** 9) | list }}",
    "power": "{{ 3 ** (10 ** 7) }}",
    "product": "{% set n = namespace(i=3) %}{% for i in range(40) %}{% set n.i = n.i * n.i %}{% endfor %}",
    "range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "lipsum": "{{ lipsum(n=10 ** 6) }}",
}  # fmt: skip
SLOW = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "tests": "{% for a in range(99999) %}{{ range(99999) | select('eq', -1) | list | length }}{% endfor %}",
    "calls": "{% macro m(n) %}{% if n %}{% set a = m(n - 1) %}{% set a = m(n - 1) %}{% endif %}"
    "{% endmacro %}{{ m(50) }}",
    "recursive loop": "{% for a in [1, 2] recursive %}{{ loop([a, a]) if loop.depth < 60 }}{% endfor %}",
}  # fmt: skip
ORDINARY = (
    "{{ '-' * 3 }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ '%05d' % 42 }}{{ [1] * 2 }}{{ 1.5 * 2 }}{{ 'a'.ljust(3) }}{{ (1, [2]) }}",
    ("{% for m in messages %}{{ loop.index }}{{ loop.last }}{{ loop.length }}"
    "{{ m.role ~ ': ' ~ m.content }}{% endfor %}"),
    "{% for m in messages if m.role == 'user' %}{{ m['content'] | trim }}{% else %}none{% endfor %}{{ missing }}",
    "{% for m in [] %}x{% else %}none{% endfor %}{% for m in missing %}x{% endfor %}{{ messages | tojson }}",
    ("{% set n = namespace(a='', found=false) %}{% for m in messages %}"
    "{% set n.a = n.a + m.content %}{% endfor %}{{ n.a }}"),
    ("{% macro say(m, end='.') %}{{ m.content }}{{ end }}{% endmacro %}"
    "{{ say(messages[0]) }}{{ say(messages[1], end='') }}"),
    "{% for a in [1, [2, [3]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}{{ {'a': [1]} }}{{ None }}",
    "{{ messages | map(attribute='role') | join(', ') }}{{ messages | selectattr('role', 'equalto', 'user') | list }}",
    "{{ messages[0].content.split('\n')[-1].lstrip() }}{{ '{} {:>4}'.format(1, 2) }}{{ 1 in [1, x] }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
    "{{ messages[0].content | e }}{{ '<b>' | safe }}{{ '<b>' | safe ~ '<c>' }}{{ 'a\nb' | indent }}",
    "{% set t %}a{{ messages[0].role }}{% endset %}{{ t }}{% filter upper %}a{{ t }}{% endfilter %}",
    "{{ true }}{{ 1.50 }}{{ -1 }}{{ messages[1:] | list }}{{ messages[0].items() | list }}{{ dict(a=1) }}",
)  # fmt: skip


def rendered(kind: Any, source: str) -> str:
    environment = kind(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    return str(environment.from_string(source).render(messages=MESSAGES))


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_template_cannot_take_much_memory(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "LARGEST", 1 << 21)
    with pytest.raises((SecurityError, OverflowError, jinja2.UndefinedError)):
        rendered(BoundedSandbox, source)


@pytest.mark.parametrize("source", SLOW.values(), ids=SLOW)
def test_a_template_cannot_take_much_time(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.05)
    with pytest.raises(SecurityError, match="runs for more than"):
        rendered(BoundedSandbox, source)


@pytest.mark.parametrize("source", ORDINARY)
def test_an_ordinary_template_renders_as_before(source: str) -> None:
    assert rendered(BoundedSandbox, source) == rendered(ImmutableSandboxedEnvironment, source)


def test_each_rendering_has_its_own_budget() -> None:
    template = BoundedSandbox().from_string("{{ 'x' * 1000000 }}")
    assert {len(template.render()) for _ in range(100)} == {1_000_000}


def test_a_filter_that_is_added_later_is_bounded() -> None:
    environment = BoundedSandbox()
    environment.filters["tojson"] = lambda value, indent: " " * indent
    with pytest.raises(SecurityError, match="tojson is too large"):
        environment.from_string("{{ [1] | tojson(1000000000) }}").render()
