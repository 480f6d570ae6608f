/*
 * Templates, and what Jinja2 3.1 makes of them over the variables below: in
 * the immutable sandbox, with trim_blocks and lstrip_blocks.  NULL: an error,
 * when it is compiled or rendered.
 */
#ifndef JINJA_CASES_H
#define JINJA_CASES_H

#include <stddef.h>

/* clang-format off */
static const char jinja_cases_vars[] =
    "{\"s\": \"Hello <b>\", \"n\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": "
    "[1, {\"x\": null}], \"items\": 7}, \"m\": [{\"role\": \"user\", \""
    "content\": \"a\"}, {\"role\": \"tool\", \"content\": \"b\"}, {\"ro"
    "le\": \"user\", \"content\": \"c\"}], \"f\": 1.5, \"t\": true, \"z"
    "\": null, \"u\": \"\303\204\303\266\303\274 \303\237 \303\251\", "
    "\"e\": \"\", \"q\": \"it's\", \"w\": \"  two  words \", \"l\": \"a"
    "\\nb\\n\\nc\\r\\nd\"}";

static const struct {
    const char *source, *want;
} jinja_cases[] = {
    {"{{ s }}{{ nope }}{{ z }}{{ t }}{{ f }}{{ n }}{{ d }}",
        "Hello <b>NoneTrue1.5[3, 1, 2]{'b': 1, 'a': [1, {'x': None}], 'item"
        "s': 7}"},
    {"{{ q }}{{ [q, s, 'a\"b', 'a\"\\'b', '\\n\\t\\\\\\x01\\x7f\\xe9\\u2"
     "00b'] }}",
        "it's[\"it's\", 'Hello <b>', 'a\"b', 'a\"\\'b', '\\n\\t\\\\\\x01\\x"
        "7f\303\251\\u200b']"},
    {"{{ (1,) }}{{ () }}{{ (1, 'a') }}{{ [] }}{{ {} }}{{ {1: 2, 'a': [no"
     "ne, true]} }}",
        "(1,)()(1, 'a')[]{}{1: 2, 'a': [None, True]}"},
    {"{{ 1e16 }} {{ 1e15 }} {{ 1.0 }} {{ 0.1 }} {{ 1e-5 }} {{ 0.0001 }} "
     "{{ 123456789.125 }} {{ 1e22 }} {{ 5e-324 }} {{ 1.5e300 }} {{ -0.0 "
     "}}",
        "1e+16 1000000000000000.0 1.0 0.1 1e-05 0.0001 123456789.125 1e+22 "
        "5e-324 1.5e+300 -0.0"},
    {"{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 7 / 2 }} {"
     "{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 6 / 2 "
     "}}",
        "3 -4 -2 2 3.5 1024 0.5 3.0 0.5 3.0"},
    {"{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} "
     "{{ 10 - 4 - 3 }} {{ 2 * 3 ~ 4 }} {{ 1 ~ 2 + 3 }}",
        NULL},
    {"{{ 'a' * 3 }}{{ 2 * 'b' }}{{ [1] * 2 }}{{ 'x' * -1 }}",
        "aaabb[1, 1]"},
    {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ [1,2] < [1,3] }"
     "} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 1 }} {{ none == none }}",
        "True False True True True True False True"},
    {"{{ 'a' in 'abc' }} {{ 2 in n }} {{ 'a' in d }} {{ 'q' not in d }} "
     "{{ not 'a' in d }} {{ nope in [1] }} {{ 1 in nope }}",
        "True True True True False False False"},
    {"{{ 1 and 0 }} {{ 0 or 'x' }} {{ not 0 }} {{ '' or none }} {{ 1 if "
     "0 }}{{ 1 if 0 else 2 }} {{ 1 if 1 else 2 if 0 else 3 }}",
        "0 x True None 2 1"},
    {"{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ 'abc'[1:] }}{{ 'abc'[::-1] }}{{ 'a"
     "bc'[:-1] }}{{ 'abcdef'[1:5:2] }}{{ 'abc'[5] }}{{ u[0] }}{{ u[::-1]"
     " }}{{ u[1:3] }}",
        "acbccbaabbd\303\204\303\251 \303\237 \303\274\303\266\303\204\303"
        "\266\303\274"},
    {"{{ n[1:] }}{{ n[::-1] }}{{ n[-2:] }}{{ n[10:] }}{{ n[:0] }}{{ n[2:"
     "0:-1] }}{{ (1,2,3)[1:] }}{{ n[-1] }}{{ n[7] }}",
        "[1, 2][2, 1, 3][1, 2][][][2, 1](2, 3)2"},
    {"{{ d.b }}{{ d['b'] }}{{ d.a[1].x }}{{ d.nope }}{{ d['items'] }}{{ "
     "d.items is callable }}{{ n.0 }}{{ d.a.1 }}",
        "11None7True3{'x': None}"},
    {"{{ m[0].role }}{{ m[0]['role'] }}{{ m.0.role }}",
        "useruseruser"},
    {"{{ 'a' 'b' \"c\" }}{{ \"\\u00e9\\x41\\101\\q\" }}",
        "abc\303\251AA\\q"},
    {"{{ s|upper }}{{ s|lower }}{{ s|title }}{{ s|capitalize }}{{ s|leng"
     "th }}{{ u|upper }}{{ u|lower }}{{ u|title }}{{ u|length }}",
        "HELLO <B>hello <b>Hello <B>Hello <b>9\303\204\303\226\303\234 SS "
        "\303\211\303\244\303\266\303\274 \303\237 \303\251\303\204\303\266"
        "\303\274 SS \303\2117"},
    {"{{ 'hello wORLD-foo (bar)'|title }} {{ \"hello wORLD-foo's (bar)\""
     ".title() }} {{ 'hELLO wORLD'|capitalize }} {{ 'aBc'.swapcase() }}",
        "Hello World-Foo (Bar) Hello World-Foo'S (Bar) Hello world AbC"},
    {"[{{ w|trim }}][{{ w.strip() }}][{{ w.lstrip() }}][{{ w.rstrip() }}"
     "][{{ 'xxaxx'.strip('x') }}][{{ 'xya'.lstrip('yx') }}][{{ 'abc'|tri"
     "m('c') }}]",
        "[two  words][two  words][two  words ][  two  words][a][a][ab]"},
    {"{{ w.split() }}{{ 'a,b,c'.split(',') }}{{ 'a,b,c'.split(',', 1) }}"
     "{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b  c '.split(none, 1) }}{{ ' a "
     "b  c '.rsplit(none, 1) }}{{ ''.split() }}{{ ''.split(',') }}",
        "['two', 'words']['a', 'b', 'c']['a', 'b,c']['a,b', 'c']['a', 'b  c"
        " '][' a b', 'c'][]['']"},
    {"{{ 'a--b'.partition('--') }}{{ 'a--b'.rpartition('-') }}{{ 'ab'.pa"
     "rtition('x') }}{{ 'ab'.rpartition('x') }}",
        "('a', '--', 'b')('a-', '-', 'b')('ab', '', '')('', '', 'ab')"},
    {"{{ l.splitlines() }}{{ l.splitlines(true) }}",
        "['a', 'b', '', 'c', 'd']['a\\n', 'b\\n', '\\n', 'c\\r\\n', 'd']"},
    {"{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'ab"
     "c'.startswith('b', 1) }}{{ 'abc'.find('c') }}{{ 'abc'.find('x') }}"
     "{{ u.find('\303\274') }}{{ 'aXbX'.rfind('X') }}{{ 'aaa'.count('a')"
     " }}{{ 'abc'.index('b') }}",
        "TrueTrueTrue2-12331"},
    {"{{ 'aXbX'.replace('X', '-') }}{{ 'aXbX'.replace('X', '-', 1) }}{{ "
     "'ab'.replace('', '.') }}{{ 'aXbX'|replace('X', '') }}{{ 'aaa'|repl"
     "ace('a', 'b', 2) }}{{ 12|replace('1', 'x') }}",
        "a-b-a-bX.a.b.abbbax2"},
    {"{{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4, '.') }}|{{ 'ab'.center(5, '*'"
     ") }}|{{ '-7'.zfill(4) }}|{{ 'ab'|center(7) }}|",
        "ab  |..ab|**ab*|-007|   ab  |"},
    {"{{ '12'.isdigit() }}{{ '1a'.isalnum() }}{{ 'ab'.isalpha() }}{{ ' '"
     ".isspace() }}{{ 'Ab'.isupper() }}{{ 'AB1'.isupper() }}{{ ''.isdigi"
     "t() }}{{ 'ab'.removeprefix('a') }}{{ 'ab'.removesuffix('b') }}",
        "TrueTrueTrueTrueFalseTrueFalseba"},
    {"{{ ','.join(['a', 'b']) }}{{ [1, none, 'x']|join('-') }}{{ n|join "
     "}}{{ m|join(',', attribute='role') }}{{ 'abc'|join('.') }}{{ m|map"
     "(attribute='content')|join }}",
        "a,b1-None-x312user,tool,usera.b.cabc"},
    {"{{ '%s is %d or %5.2f%%' % ('a', 3, 2.5) }}{{ '%05d|%-5s|%x|%r' % "
     "(42, 'ab', 255, 'q') }}{{ '%s' % 'x' }}{{ '%(a)s' % {'a': 1} }}{{ "
     "'%s-%s'|format(1, 2) }}{{ '%+d' % 3 }}",
        "a is 3 or  2.50%00042|ab   |ff|'q'x11-2+3"},
    {"{{ '{} {}'.format(1, 'a') }}{{ '{1}{0}'.format('a', 'b') }}{{ '{x:"
     ">5}|{y:<4}|{z:^5}'.format(x=1, y='b', z='c') }}{{ '{:.2f}'.format("
     "3.14159) }}{{ '{:,}'.format(1234567) }}{{ '{{}}'.format() }}{{ '{:"
     "05d}'.format(42) }}{{ '{!r}'.format('a') }}",
        "1 aba    1|b   |  c  3.141,234,567{}00042'a'"},
    {"{{ d|tojson }}{{ s|tojson }}{{ u|tojson }}{{ u|tojson(ensure_ascii"
     "=true) }}{{ [1, 2.5, true, none, '\"\\\\/\\n\\t\\x01']|tojson }}{{"
     " (1, 2)|tojson }}{{ []|tojson }}{{ {}|tojson }}",
        "{\"b\": 1, \"a\": [1, {\"x\": null}], \"items\": 7}\"Hello <b>\"\""
        "\303\204\303\266\303\274 \303\237 \303\251\"\"\\u00c4\\u00f6\\u00f"
        "c \\u00df \\u00e9\"[1, 2.5, true, null, \"\\\"\\\\/\\n\\t\\u0001\""
        "][1, 2][]{}"},
    {"{{ d|tojson(indent=2) }}{{ [[], {}, [1]]|tojson(indent=4) }}{{ d|t"
     "ojson(indent='--') }}",
        "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    {\n      \"x\": null\n    "
        "}\n  ],\n  \"items\": 7\n}[\n    [],\n    {},\n    [\n        1\n "
        "   ]\n]{\n--\"b\": 1,\n--\"a\": [\n----1,\n----{\n------\"x\": nul"
        "l\n----}\n--],\n--\"items\": 7\n}"},
    {"{{ d|tojson(sort_keys=true) }}{{ {'b': 1, 'a': 2}|tojson(separator"
     "s=(',', ':')) }}{{ {1: 2, none: 3, true: 4}|tojson }}{{ '\360\237"
     "\230\200'|tojson(ensure_ascii=true) }}",
        "{\"a\": [1, {\"x\": null}], \"b\": 1, \"items\": 7}{\"b\":1,\"a\":"
        "2}{\"1\": 4, \"null\": 3}\"\\ud83d\\ude00\""},
    {"{{ n|sort }}{{ n|sort(reverse=true) }}{{ ['b', 'A', 'c']|sort }}{{"
     " ['b', 'A']|sort(case_sensitive=true) }}{{ m|sort(attribute='role'"
     ")|map(attribute='content')|list }}{{ m|sort(attribute='role,conten"
     "t', reverse=true)|map(attribute='content')|list }}",
        "[1, 2, 3][3, 2, 1]['A', 'b', 'c']['A', 'b']['b', 'a', 'c']['c', 'a"
        "', 'b']"},
    {"{{ d|dictsort }}{{ {'b': 1, 'A': 2}|dictsort }}{{ {'b': 1, 'a': 2}"
     "|dictsort(by='value') }}{{ {'b': 1, 'a': 2}|dictsort(reverse=true)"
     " }}",
        "[('a', [1, {'x': None}]), ('b', 1), ('items', 7)][('A', 2), ('b', "
        "1)][('b', 1), ('a', 2)][('b', 1), ('a', 2)]"},
    {"{{ [1, 2, 1, 'a', 'A']|unique|list }}{{ n|min }}{{ n|max }}{{ n|su"
     "m }}{{ m|map(attribute='role')|unique|list }}{{ []|min }}",
        "[1, 2, 'a']136['user', 'tool']"},
    {"{{ n|first }}{{ n|last }}{{ []|first }}{{ 'abc'|last }}{{ n|revers"
     "e|list }}{{ 'abc'|reverse }}{{ 'abc'|list }}{{ d|list }}{{ n|batch"
     "(2)|list }}{{ n|batch(2, 'x')|list }}",
        "32c[2, 1, 3]cba['a', 'b', 'c']['b', 'a', 'items'][[3, 1], [2]][[3,"
        " 1], [2, 'x']]"},
    {"{{ m|selectattr('role', 'equalto', 'user')|list|length }}{{ m|reje"
     "ctattr('role', 'eq', 'user')|map(attribute='content')|list }}{{ n|"
     "select('odd')|list }}{{ n|reject('gt', 1)|list }}{{ m|selectattr('"
     "content')|list|length }}{{ [0, 1]|select|list }}",
        "2['b'][3, 1][1]3[1]"},
    {"{{ n|map('string')|list }}{{ ['a']|map('upper')|list }}{{ ['a']|ma"
     "p('replace', 'a', 'b')|list }}{{ m|map(attribute='x', default='-')"
     "|list }}",
        "['3', '1', '2']['A']['b']['-', '-', '-']"},
    {"{{ nope|default('x') }}{{ ''|default('x') }}{{ ''|default('x', tru"
     "e) }}{{ nope|d }}{{ z|default('y') }}{{ nope.x|default('w') if nop"
     "e is defined }}",
        "xxNone"},
    {"{{ '12'|int }}{{ 'x'|int }}{{ 'x'|int(7) }}{{ '1.9'|int }}{{ 1.9|i"
     "nt }}{{ 'ff'|int(0, 16) }}{{ ' 3 '|int }}{{ '1.5'|float }}{{ 'x'|f"
     "loat }}{{ 3|float }}{{ none|int }}",
        "12071125531.50.03.00"},
    {"{{ -3|abs }}{{ (-3)|abs }}{{ 2.5|round }}{{ 3.5|round }}{{ 2.567|r"
     "ound(2) }}{{ 2.1|round(0, 'ceil') }}{{ 2.9|round(method='floor') }"
     "}{{ 5|round }}",
        "332.04.02.573.02.05"},
    {"[{{ l|indent }}][{{ l|indent(2, true) }}][{{ l|indent('> ', blank="
     "true) }}][{{ 'a'|indent(first=true) }}][{{ 'a\\n'|indent }}]",
        "[a\n    b\n\n    c\n    d][  a\n  b\n\n  c\n  d][a\n> b\n> \n> c\n"
        "> d][    a][a\n]"},
    {"{{ 'one two three four'|truncate(10, leeway=0) }}{{ 'one two three"
     " four'|truncate(10, true, leeway=0) }}{{ 'short'|truncate(5) }}",
        "one...one two...short"},
    {"{{ s|safe + '<' }}{{ '<' + s|safe }}{{ '<' ~ s|safe }}{{ s|e }}{{ "
     "s|escape|e }}{{ (s|safe)|length }}{{ 12|string + 'a' }}",
        "Hello <b>&lt;&lt;Hello <b><Hello <b>Hello &lt;b&gt;Hello &lt;b&gt;"
        "912a"},
    {"{{ d.items()|list }}{{ d.keys()|list }}{{ d.values()|list }}{{ d.i"
     "tems() }}{{ d.keys() }}{{ d.get('b') }}{{ d.get('x') }}{{ d.get('x"
     "', 5) }}{{ d|items|list }}{{ nope|items|list }}",
        "[('b', 1), ('a', [1, {'x': None}]), ('items', 7)]['b', 'a', 'items"
        "'][1, [1, {'x': None}], 7]dict_items([('b', 1), ('a', [1, {'x': No"
        "ne}]), ('items', 7)])dict_keys(['b', 'a', 'items'])1None5[('b', 1)"
        ", ('a', [1, {'x': None}]), ('items', 7)][]"},
    {"{{ d.items is defined }}{{ n.append is defined }}{{ d.pop }}{{ n.i"
     "ndex(1) }}{{ n.count(3) }}{{ d.copy() == d }}",
        "TrueFalse11True"},
    {"{{ range(3)|list }}{{ range(1, 7, 2)|list }}{{ range(3, 0, -1)|lis"
     "t }}{{ range(3) }}{{ range(5)|length }}{{ range(5)[1] }}{{ 2 in ra"
     "nge(3) }}{{ range(0)|list }}",
        "[0, 1, 2][1, 3, 5][3, 2, 1]range(0, 3)51True[]"},
    {"{{ dict(a=1, b=2) }}{{ dict({'a': 1}, c=3) }}{{ dict([('x', 1)]) }"
     "}",
        "{'a': 1, 'b': 2}{'a': 1, 'c': 3}{'x': 1}"},
    {"{% for x in n %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex "
     "}}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.lengt"
     "h }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop."
     "cycle('a', 'b') }};{% endfor %}",
        "1032TrueFalse311a;2121FalseFalse3132b;3210FalseTrue311a;"},
    {"{% for x in [] %}x{% else %}none{% endfor %}{% for x in nope %}x{%"
     " else %}undef{% endfor %}{% for x in n if x > 1 %}{{ x }}/{{ loop."
     "length }}{% else %}no{% endfor %}{% for x in n if x > 9 %}{{ x }}{"
     "% else %}no{% endfor %}",
        "noneundef3/22/2no"},
    {"{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}{% for"
     " k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{"
     "{ k }}{% endfor %}{% for c in u %}{{ c }}.{% endfor %}{% for (a, b"
     "), c in [((1, 2), 3)] %}{{ a + b + c }}{% endfor %}",
        "1234b=1;a=[1, {'x': None}];items=7;baitems\303\204.\303\266.\303"
        "\274. .\303\237. .\303\251.6"},
    {"{% for x in n %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% "
     "if loop.index == 3 %}{% break %}{% endif %}{% endfor %}{% for x in"
     " range(9) %}{% if x > 2 %}{% break %}{% endif %}{{ x }}{% endfor %"
     "}",
        "32012"},
    {"{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}{% for x "
     "in 'ab' %}{% for y in 'cd' %}{{ loop.index }}{{ x }}{{ y }} {% end"
     "for %}{{ loop.index }}{% endfor %}",
        "TrueFalseTrue1ac 2ad 11bc 2bd 2"},
    {"{% for x in [[1, [2]], [3]] recursive %}{% if x is iterable %}<{{ "
     "loop(x) }}>{% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor "
     "%}",
        "<1@2<2@3>><3@2>"},
    {"{% set x = 1 %}{% for i in n %}{% set x = x + i %}{{ x }}{% endfor"
     " %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}",
        "42319"},
    {"{% set ns = namespace(x=1, y='a') %}{% for i in n %}{% set ns.x = "
     "ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z is defined }}{%"
     " set ns.z = 3 %}{{ ns.z }}",
        "7aFalse3"},
    {"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}{% set"
     " (p, q2) = 'xy' %}{{ p }}{{ q2 }}",
        "12(1, 2)xy"},
    {"{% set x %}a{{ 1 }}{% set y = 5 %}{{ y }}{% endset %}{{ x }}{{ y i"
     "s defined }}{% set x | upper | trim %}  abc {% endset %}[{{ x }}]{"
     "{ x is string }}",
        "a15False[ABC]True"},
    {"{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f("
     "1) }}{{ f(1, 3) }}{{ f(1, c=4) }}{{ f(b=1, a=5) }}{{ f() }}{{ f(1)"
     "|length }}",
        "12113112451523"},
    {"{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f"
     "(1, 2, 3, x=4) }}{{ f() }}",
        "1(2, 3){'x': 4}(){}"},
    {"{% macro f(a) %}<{{ caller(a) }}{{ caller('z') }}>{% endmacro %}{%"
     " call(x) f(1) %}[{{ x }}{{ s }}]{% endcall %}{% macro g() %}{{ cal"
     "ler() }}{% endmacro %}{% call g() %}body{% endcall %}",
        "<[1Hello <b>][zHello <b>]>body"},
    {"{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% e"
     "ndmacro %}{{ f(5) }}{% set y = 1 %}{% macro h() %}{{ y }}{% endmac"
     "ro %}{% set y = 2 %}{{ h() }}",
        "543212"},
    {"{% macro f(a) %}{% set a = a + 1 %}{{ a }}{% endmacro %}{{ f(1) }}"
     "{{ a is defined }}{% for i in [1] %}{% macro loc() %}{{ i }}{% end"
     "macro %}{{ loc() }}{% endfor %}{{ loc is defined }}",
        "2False1False"},
    {"{{ f(*[1, 2], **{'x': 3}) if f is defined }}{{ dict(**{'a': 1}) }}"
     "{{ range(*[1, 3])|list }}",
        NULL},
    {"{% filter upper %}a{{ s }}{% endfilter %}{% filter replace('a', 'b"
     "') | trim %}  aa {% endfilter %}{% with a = 1, b = 2 %}{{ a }}{{ b"
     " }}{% set c = 3 %}{% endwith %}{{ a is defined }}{% generation %}g"
     "{{ s }}{% endgeneration %}",
        "AHELLO <B>bb12FalsegHello <b>"},
    {"{% if 0 %}a{% elif 1 %}b{% elif 1 %}c{% else %}d{% endif %}{% if n"
     "ope %}x{% else %}y{% endif %}{% if n and d and 'a' %}z{% endif %}{"
     "% if not nope %}w{% endif %}",
        "byzw"},
    {"{{ 1 is defined }}{{ nope is defined }}{{ nope is undefined }}{{ z"
     " is none }}{{ t is boolean }}{{ t is true }}{{ t is false }}{{ 1 i"
     "s integer }}{{ t is integer }}{{ 1.0 is float }}{{ t is number }}{"
     "{ s is string }}{{ d is mapping }}{{ n is iterable }}{{ 1 is itera"
     "ble }}{{ n is sequence }}{{ d is sequence }}{{ 1 is sequence }}",
        "TrueFalseTrueTrueTrueTrueFalseTrueFalseTrueTrueTrueTrueTrueFalseTr"
        "ueTrueFalse"},
    {"{{ 3 is odd }}{{ 3 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divis"
     "ibleby(2) }}{{ 1 is sameas 1 }}{{ none is sameas none }}{{ 1 is in"
     " [1] }}{{ 'a' is eq 'a' }}{{ 1 is not none }}{{ 1 is lt(2) }}{{ 'A"
     "' is upper }}{{ 'a' is lower }}{{ 'tojson' is filter }}{{ 'nope' i"
     "s test }}{{ f is callable }}{{ range is callable }}",
        "TrueFalseTrueFalseTrueTrueTrueTrueTrueTrueTrueTrueTrueFalseFalseTr"
        "ue"},
    {"{{ 1 is string or 2 is number and not 3 is none }}{{ n is defined "
     "and n|length > 2 }}{{ (n|length) is divisibleby 3 }}",
        "TrueTrueTrue"},
    {"{%- if true -%}   a   {%- endif -%}   b",
        "ab"},
    {"a {{- 1 -}} b {{ 2 }} c",
        "a1b 2 c"},
    {"  {% if true %}\n  x\n  {% endif %}\n  y\n{%+ if true %} z{% endif"
     " +%}\nq",
        "  x\n  y\n z\nq"},
    {"{# c #}a{#- c -#}  b  {#- x #} c",
        "ab c"},
    {"{% raw %}{{ x }}{% if %}{% endraw %}{% raw -%}  a {%- endraw %} b",
        "{{ x }}{% if %}a b"},
    {"{{ strftime_now('%d %B %Y %H:%M') }}{{ strftime_now('%Y-%m-%d') }}"
     "{{ strftime_now('') }}",
        "15 January 2025 12:342025-01-15"},
    {"{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.nex"
     "t() }}{% set j = joiner('|') %}{% for x in n %}{{ j() }}{{ x }}{% "
     "endfor %}",
        "aba3|1|2"},
    {"{{ m[0].content.x is defined }}{{ m|length }}{{ m[-1].content }}{{"
     " m[1:]|length }}{{ (m|last).role }}{{ m|map(attribute='role')|join"
     "(' ') }}",
        "False3c2useruser tool user"},
    {"{{ [1, 2] + [3] }}{{ (1,) + (2,) }}{{ 'a' + 'b' }}{{ 1 + 1.5 }}{{ "
     "true + 1 }}{{ -5 }}{{ +5 }}{{ - 5|abs }}",
        "[1, 2, 3](1, 2)ab2.52-555"},
    {"{{ x if x is defined else 'no' }}{{ 'a' if e else 'b' }}{{ e|lengt"
     "h }}{{ not e }}",
        "nob0True"},
    {"{{ d == {'b': 1, 'a': [1, {'x': none}], 'items': 7} }}{{ [1, [2]] "
     "== [1, [2]] }}{{ (1,) == [1] }}{{ 'a' != 'b' }}{{ nope == none }}{"
     "{ nope == nopo }}",
        "TrueTrueFalseTrueFalseTrue"},
    {"{{ (n|map('string')) is iterable }}{% if n|select('gt', 5) %}true{"
     "% endif %}{% set g = n|select %}{{ g|list }}{{ g|list }}",
        "Truetrue[3, 1, 2][]"},
    {"{{ 1_000 }}{{ 0x1F }}{{ 0b11 }}{{ 0o17 }}{{ 1.5e2 }}{{ \"\303\251"
     "\" }}{{ 'a\\\nb' }}",
        "100031315150.0\303\251ab"},
    {"{{ nope.x }}",
        NULL},
    {"{{ nope + 1 }}",
        NULL},
    {"{{ nope['x'] }}",
        NULL},
    {"{{ nope() }}",
        NULL},
    {"{{ z.x }}{{ z['x'] }}{{ 1 .x }}",
        ""},
    {"{{ 'a' + 1 }}",
        NULL},
    {"{{ 1 + 'a' }}",
        NULL},
    {"{{ s.nope() }}",
        NULL},
    {"{{ n.append(1) }}",
        NULL},
    {"{{ d.update({}) }}",
        NULL},
    {"{{ 1 / 0 }}",
        NULL},
    {"{{ 1 % 0 }}",
        NULL},
    {"{{ 'a' in 1 }}",
        NULL},
    {"{{ 1 in 'a' }}",
        NULL},
    {"{{ 1 < 'a' }}",
        NULL},
    {"{{ none|length }}",
        NULL},
    {"{{ n|map('nope')|list }}",
        NULL},
    {"{{ n|nope }}",
        NULL},
    {"{{ n is nope }}",
        NULL},
    {"{% if false %}{{ n|nope }}{% endif %}ok",
        "ok"},
    {"{% for x in 5 %}{% endfor %}",
        NULL},
    {"{% for a, b in [1] %}{% endfor %}",
        NULL},
    {"{% set a, b = [1] %}",
        NULL},
    {"{% set d.x = 1 %}",
        NULL},
    {"{{ range(1000000000) }}",
        NULL},
    {"{{ raise_exception('no') }}",
        NULL},
    {"{{ [1]|tojson(indent=1, nope=2) }}",
        NULL},
    {"{{ (n|select)|tojson }}",
        NULL},
    {"{{ nope|tojson }}",
        NULL},
    {"{{ n|select|length }}",
        NULL},
    {"{{ n|select|last }}",
        NULL},
    {"{{ {[1]: 2} }}",
        NULL},
    {"{{ ''.join([1]) }}",
        NULL},
    {"{% break %}",
        NULL},
    {"{% nope %}",
        NULL},
    {"{% if %}",
        NULL},
    {"{% endif %}",
        NULL},
    {"{% if 1 %}",
        NULL},
    {"{{ 1",
        NULL},
    {"{{ 'a }}",
        NULL},
    {"{% for x in %}{% endfor %}",
        NULL},
    {"{{ a.b. }}",
        NULL},
    {"{{ [1, }}",
        NULL},
    {"{{ 1 2 }}",
        NULL},
    {"{# open",
        NULL},
    {"{% raw %} open",
        NULL},
    {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
        NULL},
    {"{% macro f(a) %}{% endmacro %}{{ f(b=2) }}",
        NULL},
    {"{% macro f(a) %}{% endmacro %}{% call f(1) %}x{% endcall %}",
        NULL},
    {"{% set x = 1 %}{% macro f(a=1, b) %}{% endmacro %}",
        NULL},
    {"{{ '%d' % 'a' }}",
        NULL},
    {"{{ '%s %s' % 1 }}",
        NULL},
    {"{{ '%s' % (1, 2) }}",
        NULL},
    {"{{ '{}'.format() }}",
        NULL},
    {"{{ nope|int }}",
        NULL},
    {"{{ loop.index }}",
        NULL},
    {"{% for x in n %}{{ loop(1) }}{% endfor %}",
        NULL},
    {"{{ caller() }}",
        NULL},
    {"{{ 'a'.split('') }}",
        NULL},
    {"{{ n[::0] }}",
        NULL},
    {"{{ n['a':] }}",
        NULL},
    {"{{ none + 1 }}",
        NULL},
    {"{{ {} + {} }}",
        NULL},
    {"{{ n|sort|nope if false else 1 }}",
        "1"},
    {"{{ ['a', 1]|sort }}",
        NULL},
    {"{{ n|join(attribute='x') }}{{ n|first|upper }}",
        "3"},
    {"{% set x = namespace() %}{{ x }}{% set x.a = 1 %}{{ x.a }}",
        "<Namespace {}>1"},
    {"{% for x in m %}{{ x.role }}{{ ' ' if not loop.last }}{% endfor %}",
        "user tool user"},
    {"{{ m|selectattr('role', 'in', ['tool', 'x'])|map(attribute='conten"
     "t')|first }}",
        "b"},
    {"{{ m|groupby('role') if false }}{{ d.a is not string and d.a is no"
     "t mapping and d.a is iterable }}",
        "True"},
};
/* clang-format on */

#endif
