"""Reads Prometheus' text form on standard input by its own client library and
writes what that understood as JSON: {"types": {family: type}, "samples":
[[name, {label: value}, value]]}."""
import json
import sys

from prometheus_client.parser import text_string_to_metric_families

types, samples = {}, []
for family in text_string_to_metric_families(sys.stdin.read()):
    types[family.name] = family.type
    samples += [[s.name, s.labels, s.value] for s in family.samples]
json.dump({"types": types, "samples": samples}, sys.stdout)
