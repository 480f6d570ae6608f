"""tests/grammar_random.py DIR FILE: judges the texts of FILE, a line
{"file": ..., "text": ...} each, by the schemas of DIR.

Numbers are read exactly, and whole ones as such, since 0.3 is no multiple of
0.1 as floats have it.  A schema that the validator cannot use (a pattern that
Python's re does not know, a reference to elsewhere) is told and left out.
Formats are annotations here, as the standard has them by default.
"""

import decimal
import json
import re
import sys

import jsonschema
import referencing.exceptions


def number(s):
    d = decimal.Decimal(s)
    whole = abs(d.adjusted()) < 400 and d == d.to_integral_value()
    return int(d) if whole else d


def read(s):
    return json.loads(s, parse_float=number, strict=True)


def main(where, texts):
    passed, failed, left_out, validators = 0, 0, {}, {}
    for line in open(texts, encoding="utf-8"):
        line = json.loads(line)
        name = line["file"]
        if name not in validators:
            with open(f"{where}/{name}", encoding="utf-8") as f:
                schema = read(f.read())["schema"]
            kind = jsonschema.validators.validator_for(
                schema, default=jsonschema.Draft202012Validator)
            validators[name] = kind(schema)
        try:
            error = next(validators[name].iter_errors(read(line["text"])), None)
        except (re.error, referencing.exceptions.Unresolvable,
                jsonschema.exceptions.UnknownType) as e:
            left_out[name] = e
            continue
        if error is None:
            passed += 1
        else:
            failed += 1
            print(f"{name}: {error.message[:300]}\n    {line['text'][:600]}")
    for name, e in sorted(left_out.items()):
        print(f"left out: {name}: {type(e).__name__} {str(e)[:100]}")
    print(f"{passed} passed, {failed} failed, {len(left_out)} skipped")
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
