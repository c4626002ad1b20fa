#!/usr/bin/env python3
"""Asks a Prometheus each expression of a Grafana dashboard, as its panels would. Prints one line for each, and fails when one
is refused or has no data. usage: dashboard.py DASHBOARD PROMETHEUS-URL RATE-INTERVAL"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

dashboard, base, interval = sys.argv[1:]


def ask(path, **parameters):
    try:
        with urllib.request.urlopen(f"{base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"], ""
    except urllib.error.HTTPError as error:
        return None, json.load(error).get("error", str(error))


def expressions(panels):
    for panel in panels:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))
        yield from expressions(panel.get("panels", []))


with open(dashboard, encoding="utf-8") as file:
    content = json.load(file)
failures = 0
variables = {"$__rate_interval": interval}
for variable in content["templating"]["list"]:
    if variable["type"] != "query":
        continue
    query = variable["query"]["query"]
    metric, label = query.removeprefix("label_values(").removesuffix(")").split(",")
    values, problem = ask(f"label/{label.strip()}/values", **{"match[]": metric})
    failures += not values
    print(f"{'ok' if values else 'FAIL'} ${variable['name']}: {values or problem}")
    variables[f"${variable['name']}"] = variable["allValue"]
for title, expression in expressions(content["panels"]):
    for name, value in variables.items():
        expression = expression.replace(name, value)
    data, problem = ask("query", query=expression)
    found = len(data["result"]) if data else 0
    failures += not found
    print(f"{'ok' if found else 'FAIL'} {title}: {found} series: {expression} {problem}")
sys.exit(failures > 0)
