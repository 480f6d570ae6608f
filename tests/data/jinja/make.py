"""Makes cases.json: templates, and what Jinja2 makes of them.

    python3 -m venv build/hf && build/hf/bin/pip install jinja2==3.1.6
    build/hf/bin/python tests/data/jinja/make.py

The environment is that of transformers: the immutable sandbox, trim_blocks,
lstrip_blocks and the loop controls, no other extension: "do" is unknown.  A
case whose "want" is null is an error, when it is compiled or rendered.

Not asked for, since it is left out: templates that include or extend others
(block, include, extends, import, autoescape); the filters striptags, urlize,
wordwrap, pprint and random, and lipsum; bytes (encode), translate, methods of
numbers, attributes of macros, and formats that look into a value ("{a.b}").
"""

import json
import os

from jinja2.sandbox import ImmutableSandboxedEnvironment

VARS = {
    "m": [
        {"role": "user", "n": 2, "f": {"x": "b"}},
        {"role": "Tool", "n": 1, "f": {"x": "a"}},
        {"role": "user", "n": 1, "f": {"x": "B"}},
        {"role": "tool", "n": 3, "f": {"x": "A"}},
        {"n": 3},
    ],
    "l": [1, 2, 3, 4, 5, 6, 7],
    "s": "Hello w\u00f6rld, it's 3\u00bd o'clock_now \u65e5\u672c e\u0301!",
    "d": {"a b": "x&y", "c/d": 1, "\u00e9": None, "e": True},
    "e": [],
    "h": "<p class=\"a\">x &amp; y</p>",
    "z": None,
}

CASES = r"""
{% for g in m[:4]|groupby('role') %}{{ g.grouper }}:{{ g.list|length }};{% endfor %}
{% for k, v in m[:4]|groupby('role') %}{{ k }}={{ v|map(attribute='n')|join(',') }};{% endfor %}
{% for k, v in m[:4]|groupby('role', case_sensitive=true) %}{{ k }}={{ v|map(attribute='n')|join(',') }};{% endfor %}
{% for k, v in m|groupby('role', default='none') %}{{ k }}={{ v|map(attribute='n')|join(',') }};{% endfor %}
{% for k, v in m|groupby('n') %}{{ k }}={{ v|length }};{% endfor %}
{% for k, v in m[:4]|groupby('f.x') %}{{ k }}={{ v|length }};{% endfor %}
{% for k, v in m[:4]|groupby(attribute='f.x', default='q', case_sensitive=true) %}{{ k }}={{ v|length }};{% endfor %}
{{ (m[:2]|groupby('n'))[0] }}
{{ (m[:2]|groupby('n'))[0][0] }}{{ (m[:2]|groupby('n'))[1]['grouper'] }}{{ (m[:2]|groupby('n'))[1]['list'][0].role }}
{{ m[:2]|groupby('n')|length }}{{ e|groupby('n') }}{{ (m[:1]|groupby('n'))[0] is sequence }}{{ (m[:1]|groupby('n'))[0].nope }}
{{ (m[:2]|groupby('n'))|map(attribute='grouper')|list }}{{ (m[:2]|groupby('n'))|map(attribute='list')|map('length')|list }}
{% for k, v in ['b', 'a', 'B']|groupby(0) %}{{ k }}{{ v }}{% endfor %}
{% for k, v in [[1, 'a'], [0, 'b'], [1, 'c']]|groupby(0) %}{{ k }}{{ v }}{% endfor %}
{{ m|groupby('role') }}
{{ m|groupby }}
{{ 1|groupby('a') }}
{{ nope|groupby('a') }}
{{ l|slice(3)|list }}{{ l|slice(3, 'x')|list }}{{ l|slice(10)|list }}{{ l|slice(1)|list }}
{{ e|slice(2)|list }}{{ e|slice(2, 0)|list }}{{ 'abcd'|slice(3)|list }}{{ l|slice(7, none)|list }}
{{ l|slice(-2)|list }}
{{ l|slice(0)|list }}
{{ l|slice('a')|list }}
{{ l|slice }}
{% for c in l|slice(slices=2, fill_with='-') %}{{ c|join }}|{% endfor %}
{{ l|slice(2)|length }}
{{ s|wordcount }}{{ ''|wordcount }}{{ '  '|wordcount }}{{ 'a-b_c d.e'|wordcount }}{{ 12|wordcount }}{{ nope|wordcount }}{{ ['a b']|wordcount }}
{{ 'x y/z?a=b&c'|urlencode }} {{ s|urlencode }} {{ d|urlencode }} {{ [['a', 'b c'], ['d/', 1]]|urlencode }} {{ 12|urlencode }} {{ ''|urlencode }} {{ 'A-Z_a.z~0/'|urlencode }}
{{ none|urlencode }}{{ true|urlencode }}{{ nope|urlencode }}|{{ e|urlencode }}|{{ 1.5|urlencode }}
{{ [1]|urlencode }}
{{ [[1, 2, 3]]|urlencode }}
{{ [['ab', '%+']]|urlencode }}{{ {'a': [1, 2]}|urlencode }}{{ ['ab', 'cd']|urlencode }}
{{ 1|filesizeformat }} {{ 0|filesizeformat }} {{ 999|filesizeformat }} {{ 1000|filesizeformat }} {{ 1500000|filesizeformat }} {{ '12345678'|filesizeformat }} {{ 5.7|filesizeformat }} {{ -3|filesizeformat }}
{{ 1024|filesizeformat(true) }} {{ 1048576|filesizeformat(binary=true) }} {{ 1e15|filesizeformat }} {{ 1e30|filesizeformat }} {{ 1023|filesizeformat(true) }} {{ 999999|filesizeformat }} {{ true|filesizeformat }}
{{ 'x'|filesizeformat }}
{{ none|filesizeformat }}
[{{ {'x-y': 'a&b', 'z': true}|xmlattr }}][{{ {}|xmlattr }}][{{ {'a': none, 'b': nope}|xmlattr }}][{{ {'a': '<"x">'}|xmlattr(false) }}][{{ {'a': 1.5, 'b': [1]}|xmlattr(autospace=true) }}]
[{{ {'a': '<&', 'b': true}|xmlattr }}]{{ {'x': '<b>'|safe}|xmlattr }}{{ {'a&b': 1}|xmlattr }}
{{ {'a b': 1}|xmlattr }}
{{ {'a>': 1}|xmlattr }}
{{ {1: 1}|xmlattr }}
{{ [1]|xmlattr }}
{{ 'abc'.isascii() }}{{ '\u00e9'.isascii() }}{{ ''.isascii() }}{{ 'Hello World'.istitle() }}{{ 'Hello world'.istitle() }}{{ 'A1b'.istitle() }}{{ 'A1B'.istitle() }}{{ ''.istitle() }}{{ '12'.istitle() }}{{ "It's".istitle() }}{{ "It'S".istitle() }}
[{{ 'a\tb'.expandtabs() }}][{{ 'a\tb\n\tc'.expandtabs(4) }}][{{ '\t'.expandtabs(0) }}][{{ '\u00e9\tx'.expandtabs(tabsize=3) }}]
{{ '\u00bd'.isnumeric() }}{{ '\u2167'.isnumeric() }}{{ '12'.isnumeric() }}{{ '1.5'.isnumeric() }}{{ '\u00bd'.isalnum() }}{{ '\u00bd'.isdecimal() }}{{ '\u00bd'.isdigit() }}{{ '\u0663'.isdigit() }}{{ '\u00b2'.isdigit() }}{{ '\u00b2'.isdecimal() }}
{{ 'abcabc'.find('b', 2) }}{{ 'abcabc'.find('b', 2, 4) }}{{ 'abcabc'.rfind('b', 0, 3) }}{{ 'abcabc'.rfind('b', 5) }}{{ 'abcabc'.count('b', 2) }}{{ 'abcabc'.count('b', 0, 2) }}{{ 'abcabc'.index('c', 3) }}{{ 'abcabc'.rindex('a', 0, 3) }}{{ 'abc'.find('a', -3) }}{{ 'abc'.count('', 1) }}
{{ 'abc'.index('a', 1) }}
{{ [1, 2, 1].index(1, 1) }}{{ (1, 2, 1).index(1, 1) }}
{{ 'ab' is lower }}{{ 'A' is upper }}{{ 3 is number }}{{ [] is iterable }}{{ 'x' is in 'xy' }}{{ 5 is divisibleby(5) }}{{ 5 is divisibleby 2 }}{{ true is boolean }}{{ 1 is integer }}{{ 1.0 is float }}{{ z is none }}{{ m is sameas m }}{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}
{{ l|batch(3, 0)|list }}{{ l|sum }}{{ l|min }}{{ l|max }}{{ l|first }}{{ l|last }}{{ l|select('odd')|list }}{{ l|reject('odd')|list }}{{ [3, 1, 2]|sort(reverse=true) }}{{ ['b', 'A', 'c']|sort }}{{ ['b', 'A', 'b']|unique|list }}
{{ d|dictsort }}{{ {'b': 1, 'a': 2}|dictsort(by='value') }}{{ d|items|list }}{{ m|map(attribute='role', default='-')|list }}{{ m|selectattr('role', 'defined')|map(attribute='role')|unique|list }}{{ m|rejectattr('role')|list }}
{{ 'abc def ghi'|truncate(7) }}{{ 'abc def ghi'|truncate(7, true) }}{{ 'abc def ghi'|truncate(5, true, '..', 0) }}{{ 'abcdef'|truncate(4, leeway=0) }}
{{ 3.7|round }}{{ 3.14159|round(2) }}{{ 3.1|round(0, 'ceil') }}{{ 2.5|round }}{{ '7'|int }}{{ 'x'|int(9) }}{{ '1.5'|float }}{{ -4|abs }}{{ '0x1f'|int(0, 16) }}{{ 'abc'|center(9) }}{{ 'a\nb'|indent }}{{ 'a\nb'|indent(2, true) }}
{{ h|escape }}{{ h|e|escape }}{{ h|safe }}{{ h|forceescape }}{{ (h|safe) ~ '<' }}{{ 'x'|string }}{{ m[0]|attr('role') }}{{ 'a'|attr('upper') is defined }}
{{ joiner('|')() }}{% set j = joiner('|') %}{{ j() }}{{ j() }}{{ j() }}{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set n = namespace(x=1) %}{% set n.x = n.x + 1 %}{{ n.x }}{{ dict(a=1, b=2) }}{{ range(3)|list }}{{ range(5, 0, -2)|list }}
{% for x in l if x is odd %}{{ loop.index }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x // 4) }};{% endfor %}
{% for x in l %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% else %}none{% endfor %}{% for x in e %}a{% else %}b{% endfor %}
{% macro f(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ caller is defined }}{% endmacro %}{{ f(1) }}{{ f(1, 3, 4, x=5) }}{% call f(1) %}x{% endcall %}
{% macro g() %}[{{ caller('p') }}]{% endmacro %}{% call(q) g() %}{{ q }}!{% endcall %}
{% filter upper|trim %} a{{ s[:3] }} {% endfilter %}{% set t %}x{% endset %}{{ t }}{% set u|upper %}y{% endset %}{{ u }}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}
{%- for item in [{'n': 1, 'c': [{'n': 2, 'c': []}]}] recursive %}{{ item.n }}({{ loop(item.c) }}{{ loop.depth }}){% endfor %}
{% do l.append(1) %}
{% do 1 %}
{% set x = l.append(1) %}
{{ l.append(8) }}
{% trans %}x{% endtrans %}
{% include 'x' %}
{% extends 'x' %}
{% debug %}
{{ 1|nope }}
{{ 1 is nope }}
{{ s.__class__ }}|{{ ''.__class__.__mro__ is defined }}
{{ [1, 2]|tojson }}{{ d|tojson }}{{ h|tojson }}
{{ 'a,b'.split(',')|join('-') }}{{ 'A'.casefold() }}{{ 'stra\u00dfe'.upper() }}
{{ '%s %d %.2f'|format('a', 2, 1.239) }}{{ '{0} {x!r:>5}'.format(1, x='a') }}
{{ {'a': 1}.get('b', 2) }}{{ {'a': 1}.keys()|list }}{{ {'a': 1}.values()|list }}{{ {'a': 1}.items()|list }}{{ {'a': 1}.copy() }}{{ dict({'a': 1}, b=2) }}{{ {'a': {'b': 1}}.a.b }}
{{ {'a': 1}.update({'b': 2}) }}
{{ {'a': 1}.pop('a') }}
{{ 10 // 3 }}{{ 10 % 3 }}{{ 2 ** 3 }}{{ 7 / 2 }}{{ -7 // 2 }}{{ 'a' ~ 1 }}{{ 1 if true }}{{ not true }}{{ 1 < 2 < 3 }}{{ 'a' in 'abc' }}{{ l[::-1] }}{{ l[1:3] }}{{ s[-1] }}
"""


def main():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda v, **k: json.dumps(
        v, ensure_ascii=False, **k)
    cases = []
    for source in CASES.strip().split("\n"):
        try:
            want = env.from_string(source).render(**json.loads(json.dumps(VARS)))
        except Exception as why:
            print(f"{type(why).__name__}: {why}: {source}")
            want = None
        cases.append({"source": source, "want": want})

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.json")
    with open(path, "w", encoding="ascii") as f:
        json.dump({"vars": VARS, "cases": cases}, f, indent=1)
        f.write("\n")


main()
