# SPDX-License-Identifier: Apache-2.0
"""Alerts by promtool; every metric that alerts, dashboard and autoscalers name,
by a real Prometheus that scrapes the server and the gateway."""
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request

import pytest
import yaml
from conftest import ROOT, Reply, free_port, wait_for

MONITORING = ROOT / "deploy" / "monitoring"
TESTS = ROOT / "tests" / "e2e" / "monitoring" / "rules_test.yaml"
RULES = yaml.safe_load(
    (MONITORING / "prometheus-rule.yaml").read_text())["spec"]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
# Not there until something happens that does not happen here: no GPU, no
# token file, no budget of memory. Their names are still held to the page that
# a test of the server holds to the server.
ELSEWHERE = {"limpid_gpu_memory_used_bytes", "limpid_gpu_memory_total_bytes",
             "limpid_token_reloads_total", "limpid_model_evictions_total"}


def dashboard_queries():
    return [target["expr"] for panel in DASHBOARD["panels"]
            for target in panel["targets"]]


def scaling_queries():
    adapter = yaml.safe_load(
        (MONITORING / "prometheus-adapter.yaml").read_text())
    return [query.replace("<<.GroupBy>>", "pod").replace(
        "<<.LabelMatchers>>", 'pod!=""').replace("<<.Series>>", re.match(
            r"\w+", rule["seriesQuery"])[0])
        for rule in adapter["rules"]["custom"]
        for query in [rule["metricsQuery"]]]


def rule_queries():
    return [rule["expr"] for group in RULES["groups"]
            for rule in group["rules"]]


def promtool(folder, *arguments):
    return subprocess.run(["promtool", *arguments], cwd=folder, text=True,
                          capture_output=True)


def test_rules_raise_what_they_should(tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    shutil.copy(TESTS, tmp_path)
    for arguments in (("check", "rules", "rules.yaml"),
                      ("test", "rules", TESTS.name)):
        done = promtool(tmp_path, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_says_what_to_do():
    raised = {case["alertname"]
              for test in yaml.safe_load(TESTS.read_text())["tests"]
              for case in test["alert_rule_test"] if case["exp_alerts"]}
    alerts = [rule for group in RULES["groups"] for rule in group["rules"]
              if "alert" in rule]
    assert raised == {alert["alert"] for alert in alerts}
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "action"}


def test_queries_can_be_read(tmp_path):
    queries = [query.replace("$__rate_interval", "5m").replace("$job", ".*")
               for query in dashboard_queries() + scaling_queries()]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{
        "name": "queries", "rules": [
            {"record": f"query:{i}", "expr": query}
            for i, query in enumerate(queries)]}]}))
    done = promtool(tmp_path, "check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and max(cells)[0] < 24, panel["title"]
        taken |= cells


@pytest.fixture(scope="module")
def prometheus(server, gateway, tmp_path_factory):
    """Asks a Prometheus that has scraped both after some calls."""
    text = {"input": {"text": "Not bad."}}
    assert Reply(gateway.explain_url(), body=text).code == 200
    assert Reply(gateway.explain_url(verb="streamExplain"), body=text).code == \
        200
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    (folder / "prometheus.yaml").write_text(yaml.safe_dump({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": name, "static_configs": [
            {"targets": [f"127.0.0.1:{target}"]}]} for name, target in [
                ("limpid", server.metrics), ("gateway", gateway.ops)]]}))
    process = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yaml",
         f"--web.listen-address=127.0.0.1:{port}",
         "--storage.tsdb.path=data"], cwd=folder,
        stderr=(folder / "log").open("wb"))

    def ask(path, **parameters):
        url = f"http://127.0.0.1:{port}/api/v1/{path}?" + \
            urllib.parse.urlencode(parameters)
        return json.load(urllib.request.urlopen(url, timeout=10))["data"]

    def scraped():
        try:
            return len(ask("query", query="up == 1")["result"]) == 2
        except OSError:
            return False
    try:
        wait_for(scraped)
        yield ask
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_every_metric_that_is_named_is_there(prometheus):
    there = set(prometheus("label/__name__/values"))
    documented = (ROOT / "docs" / "metrics.md").read_text()
    queries = "\n".join(dashboard_queries() + scaling_queries() +
                        rule_queries())
    named = set(re.findall(r"\b(?:limpid|envoy|grpc)_[a-z0-9_]+", queries))
    # Labels, not metrics.
    named -= {"envoy_cluster_name", "envoy_response_code_class", "grpc_service",
              "grpc_method", "grpc_code"}
    assert len(named) > 20
    assert named - ELSEWHERE - there == set()
    assert ELSEWHERE & named == ELSEWHERE
    for name in ELSEWHERE:
        assert f"`{name}`" in documented


def test_panels_have_data(prometheus):
    empty = []
    for query in dashboard_queries():
        # Of the only scrape, counters have no rate yet.
        now = re.sub(r"rate\((.*?)\[\$__rate_interval\]\)", r"(\1)",
                     query).replace("$job", "limpid")
        if not prometheus("query", query=now)["result"]:
            empty.append(query)
    assert [query for query in empty
            if not any(name in query for name in ELSEWHERE)] == []
