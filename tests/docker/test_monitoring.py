"""Rules and dashboard must speak of metrics that exist, and each alert must lead to a page that says what to do."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from tests.docker.metrics import metric_names

from suffuse.autoscale.exporter import Exporter

DASHBOARD = Path("docker/grafana/dashboards/suffuse.json")
RULES = Path("docker/prometheus/rules.yml")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def known() -> set[str]:
    """What is recorded, exported by the autoscaler, declared by TorchServe, or made by Prometheus itself."""
    torchserve_spec = find_spec("ts")  # importing it would leave a file open
    assert torchserve_spec is not None
    assert torchserve_spec.submodule_search_locations
    package = Path(torchserve_spec.submodule_search_locations[0])
    declared = yaml.safe_load((package / "configs" / "metrics.yaml").read_text("utf-8"))
    torchserve = {metric["name"] for kind in declared["ts_metrics"].values() for metric in kind}
    exporter = Exporter("m", ("http://s",)).registry
    exported = {metric.name + ("_total" if metric.type == "counter" else "") for metric in exporter.collect()}
    return torchserve | exported | {rule["record"] for rule in rules() if "record" in rule} | {"up", "ALERTS"}


def test_names_of_metrics_are_found_in_an_expression() -> None:
    expression = (
        'sum by (model) (rate(a_total{x=~"y_z|w"}[5m])) / on (model) group_left () b:c:rate1m > 0.5 or absent(up)'
    )

    assert metric_names(expression) == {"a_total", "b:c:rate1m", "up"}


def test_rules_use_metrics_that_exist() -> None:
    used = set().union(*(metric_names(rule["expr"]) for rule in rules()))

    # HAProxy's are looked up in a running Prometheus, by test_compose.py.
    assert {name for name in used if not name.startswith("haproxy_")} <= known()


def test_dashboard_shows_metrics_that_exist() -> None:
    used = set().union(*(metric_names(target["expr"]) for panel in panels() for target in panel["targets"]))

    assert used <= known()


def test_recorded_series_come_before_the_rules_that_read_them() -> None:
    recorded: set[str] = set()
    for rule in rules():
        assert {name for name in metric_names(rule["expr"]) if ":" in name} <= recorded
        recorded.add(rule.get("record", ""))


def test_each_alert_has_a_severity_a_summary_and_a_section_of_operations() -> None:
    sections = re.findall(r"^#+ (.+)$", Path("docs/operations.md").read_text("utf-8"), re.MULTILINE)

    assert len(alerts()) >= 8
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["alert"] in sections


def test_dashboard_has_panels_apart_from_each_other_on_the_provisioned_source() -> None:
    source = yaml.safe_load(Path("docker/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    (uid,) = (each["uid"] for each in source["datasources"])
    cells: set[tuple[int, int]] = set()

    for panel in panels():
        place = panel["gridPos"]
        own = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not own & cells
        assert max(x for x, _ in own) < 24
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {panel["datasource"]["uid"]} == {uid}
        cells |= own


def test_dashboard_lies_where_grafana_is_told_to_look() -> None:
    compose = yaml.safe_load(Path("docker/compose.yaml").read_text("utf-8"))
    provider = yaml.safe_load(Path("docker/grafana/provisioning/dashboards/suffuse.yml").read_text("utf-8"))
    targets = {volume["source"]: volume["target"] for volume in compose["services"]["grafana"]["volumes"]}

    assert provider["providers"][0]["options"]["path"] == targets["./grafana/dashboards"]
    assert DASHBOARD.parent == Path("docker/grafana/dashboards")
