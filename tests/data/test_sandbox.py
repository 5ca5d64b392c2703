"""Templates write what transformers writes, and cannot run away or break out."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from hone.data.sandbox import TemplateError, compile_template
from hone.errors import ModelError


def write(source: str, **variables) -> str:
    return compile_template(source).render(variables)


HOSTILE = {
    "long range": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "text times number": "{{ 'a' * 10**10 }}",
    "number times text": "{{ 10**10 * 'a' }}",
    "list times number": "{{ ([0] * 10**9) | length }}",
    "doubling with plus": "{% set ns = namespace(s='aa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "doubling with tilde": "{% set ns = namespace(s='aa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubling in a capture": "{% set ns = namespace(s='aa') %}{% for i in range(60) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}",
    "doubling in a macro": "{% macro m(s) %}{{ s }}{{ s }}{% endmacro %}{% set ns = namespace(s='aa') %}{% for i in range(60) %}{% set ns.s = m(ns.s) %}{% endfor %}",
    "doubling a list": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "doubling a dictionary": "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x | tojson }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "squaring": "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "wide format": "{{ '%1000000000d' % 1 }}",
    "wide star format": "{{ '%*d' % (1000000000, 1) }}",
    "wide str.format": "{{ '{:1000000000}'.format(1) }}",
    "wide format filter": "{{ '%1000000000d' | format(1) }}",
    "center": "{{ 'a' | center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "indent": "{{ 'a\\nb' | indent(10**9) }}",
    "json indent": "{{ [[1]] | tojson(indent=10**9) }}",
    "replace": "{% set a = 'a' * 100000 %}{{ a.replace('a', a) }}",
    "replace filter": "{% set a = 'a' * 100000 %}{{ a | replace('a', a) }}",
    "join": "{% set a = 'a' * 100000 %}{{ a.join(['b'] * 100000) }}",
    "join filter": "{% set a = 'a' * 100000 %}{{ range(100000) | join(a) }}",
    "join of one text": "{% set a = 'a' * 100000 %}{{ ([a] * 100000) | join }}",
    "sum of lists": "{{ ([[1] * 1000] * 1000) | sum(start=[]) }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "macro recursion": "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "branching recursion": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "much output": "{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}",
    "expandtabs": "{{ ('\\t' * 100000).expandtabs(100000) }}",
}


SLOW_TO_TRACE = {"nested loops", "branching recursion", "macro recursion"}


@pytest.mark.parametrize("name", HOSTILE)
def test_runaway_templates_are_stopped_soon(name):
    if name not in SLOW_TO_TRACE:
        tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(TemplateError):
            write(HOSTILE[name], messages=[{"role": "user", "content": "hi"}])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * 2**20
    assert time.process_time() - begun < 20  # a runaway takes forever


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ namespace(__class__=1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_there_is_no_way_out(source):
    try:
        text = write(source, messages=[])
    except TemplateError:
        return
    assert text == ""  # an undefined value, which writes nothing


def test_what_templates_lean_on():
    assert write("{% if a %}\n  x\n{% endif %}\ny", a=1) == "  x\ny"
    assert (
        write("{% for x in [1,2,3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}")
        == "13"
    )
    assert (
        write("{% for x in [1,2,3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}")
        == "1"
    )
    assert (
        write("{{ x | tojson }}", x={"b": "é<", "a": [1, None, 2.0]})
        == '{"b": "é<", "a": [1, null, 2.0]}'
    )
    assert (
        write("{{ x | tojson(indent=2, sort_keys=True) }}", x={"b": 1, "a": 2})
        == '{\n  "a": 2,\n  "b": 1\n}'
    )
    assert write("{% generation %}a{{ x }}{% endgeneration %}b", x=1) == "a1b"
    assert (
        write(
            "{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"
        )
        == "3"
    )
    assert (
        write(
            "{{ messages[0].items is defined }}{{ messages[0].nothing is defined }}",
            messages=[{"items": 1}],
        )
        == "TrueFalse"
    )
    assert (
        write("{% for k, v in x.items() %}{{ k }}={{ v }};{% endfor %}", x={"a": 1, "b": 2})
        == "a=1;b=2;"
    )
    assert (
        write(
            "{% for x in xs if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}",
            xs=[1, 2, 3],
        )
        == "1/2:2 2/2:3 "
    )
    assert write("{{ xs | map(attribute='a') | join(', ') }}", xs=[{"a": 1}, {"a": 2}]) == "1, 2"
    assert write("{{ 'a' ~ 1 ~ none }}{{ 'x%s' % 'y' }}{{ 'a-{}'.format('b') }}") == "a1Nonexya-b"
    assert len(write("{{ strftime_now('%Y') }}")) == 4
    assert write("{% set x %}a{% endset %}{{ x | upper }}") == "A"
    assert write("{% filter upper %}a{% endfilter %}") == "A"


def test_the_same_text_as_transformers():
    from transformers.utils.chat_template_utils import render_jinja_template

    source = (
        "{%- macro show(x, level=0) %}\n  {{- '-' * level ~ x.name }}\n  {%- for y in x.inner or [] %}{{ show(y, level + 1) }}{% endfor %}\n{%- endmacro %}\n"
        "{% for m in messages %}\n    {{ loop.cycle('a', 'b') }} {{ m['role'] | title }}: {{ m.content | trim | replace('x', 'yy') }}\n"
        "{% if not loop.last %}{{ loop.revindex }}{% endif %}\n{% endfor %}\n{{ show(tools[0]) }}{{ tools | tojson }}"
        "{% if add_generation_prompt is defined and add_generation_prompt %}GO{% endif %}{{ messages[1:] | length }}{{ messages[::-1][0].role }}"
    )
    messages = [{"role": "user", "content": " x "}, {"role": "assistant", "content": "xx"}]
    tools = [{"name": "t", "inner": [{"name": "u", "inner": [{"name": "v"}]}]}]
    theirs = render_jinja_template(
        [messages], tools=tools, chat_template=source, add_generation_prompt=True
    )[0][0]
    assert (
        write(source, messages=messages, tools=tools, documents=None, add_generation_prompt=True)
        == theirs
    )


def test_a_refusal_keeps_the_templates_words():
    with pytest.raises(TemplateError, match="roles must alternate"):
        write("{{ raise_exception('roles must alternate') }}")


def test_a_template_that_is_no_jinja_names_its_line():
    with pytest.raises(ModelError) as caught:
        compile_template("a\n{% if %}")
    assert "line 2" in str(caught.value)


def test_json_is_remembered_only_within():
    compiled = compile_template("{{ x | tojson }}")
    value = {"a": 1}
    with compiled.remembering():
        assert compiled.render({"x": value}) == '{"a": 1}'
        assert compiled.render({"x": value}) == '{"a": 1}'
    value["a"] = 2
    assert compiled.render({"x": value}) == '{"a": 2}'
    with compiled.remembering():
        assert compiled.render({"x": value}) == '{"a": 2}'
