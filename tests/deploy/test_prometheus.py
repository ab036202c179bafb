"""Alerts and board: every query asks for metrics and labels that exist, every alert leads to what to do about it."""

import re
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from pipeline.bootstrap import STAGES
from pipeline.reports.watch import OUTCOMES, PERIOD_STATES
from pipeline.runtime import metrics
from tests.deploy.files import (
    DEPLOY,
    OPERATIONS,
    PROMETHEUS,
    alert_rules,
    board,
    compose,
    own_services,
    queries,
    services,
)

TARGET_LABELS = {"job", "instance", "stage"}
FUNCTIONS = {
    "absent", "avg_over_time", "count", "deriv", "histogram_quantile", "increase", "max", "rate", "sum", "time",
    "vector",
}  # fmt: skip
WORDS = {"and", "or", "by", "on", "offset"}
QUERIES = list(queries())

_STRING = re.compile(r'"[^"]*"')
_BY = re.compile(r"\bby \(([a-z_, ]+)\)")
_RANGE = re.compile(r"\[[0-9]+[smhd]\]|offset [0-9]+[smhd]")
_SELECTOR = re.compile(r"\b(up|rackmeter_[a-z_]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'([a-z_]+)(=~|!=|=)"([^"]*)"')
_WORD = re.compile(r"\b[a-zA-Z_]+\b")


def _samples() -> Iterator[tuple[str, set[str]]]:
    """Every sample a scrape of our processes can have, with its own labels."""
    yield "up", set()
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            labels = set(metric._labelnames)
            if isinstance(metric, Counter):
                yield f"{metric._name}_total", labels
            elif isinstance(metric, Histogram):
                yield from ((f"{metric._name}_{part}", labels) for part in ("sum", "count"))
                yield f"{metric._name}_bucket", labels | {"le"}
            else:
                yield metric._name, labels


SAMPLES = dict(_samples())


def _selectors(query: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each metric a query names, with its (label, value) pairs; a pattern's alternatives one by one."""
    found = []
    for name, inside in _SELECTOR.findall(query):
        pairs = [(label, value) for label, _, text in _MATCHER.findall(inside) for value in text.split("|")]
        found.append((name, pairs))
    return found


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[f"{where} {i}" for i, (where, _) in enumerate(QUERIES)])
def test_a_query_asks_for_what_is_measured(where: str, query: str) -> None:
    """A metric, label or function that does not exist gives an empty answer, which looks like good news."""
    selectors = _selectors(query)
    assert selectors, where
    labels = set(TARGET_LABELS)
    for name, pairs in selectors:
        assert name in SAMPLES, f"{where}: {name}"
        assert {label for label, _ in pairs} <= SAMPLES[name] | TARGET_LABELS, f"{where}: {name}"
        labels |= SAMPLES[name]
    for group in _BY.findall(query):
        assert {label.strip() for label in group.split(",")} <= labels, where
    rest = _BY.sub(" ", _RANGE.sub(" ", _SELECTOR.sub(" ", _STRING.sub(" ", query))))
    assert set(_WORD.findall(rest)) <= FUNCTIONS | WORDS, where


def test_values_that_are_asked_for_exist() -> None:
    """A stage, outcome or state is one of those that are measured."""
    known = {
        ("up", "job"): {"rackmeter"},
        ("rackmeter_open_decisions", "outcome"): set(OUTCOMES),
        ("rackmeter_periods", "state"): set(PERIOD_STATES),
    }
    for where, query in QUERIES:
        for name, pairs in _selectors(query):
            for label, value in pairs:
                if label == "stage":
                    assert value in (*STAGES, "watch"), where
                elif label == "job":
                    assert value == "rackmeter", where
                else:
                    assert value in known[name, label], where


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: dict[str, dict[str, str]]) -> None:
    """It waits before it wakes anybody, has a severity and a sentence, and its page has the heading."""
    headings = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == "docs/operations.md"
    assert anchor in anchors


def test_every_alert_has_a_unit_test() -> None:
    """rules_test.yml, which `make alerts` runs, makes each alert fire, and has each be silent when all is well."""
    told = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for test in told for case in test["alert_rule_test"] if case["exp_alerts"]}
    silent = {case["alertname"] for case in told[-1]["alert_rule_test"] if not case["exp_alerts"]}
    names = {rule["alert"] for rule in alert_rules()}

    assert fired == names
    assert silent == names


def test_prometheus_asks_every_service_on_its_port() -> None:
    """A stage that is not asked is neither seen nor missed."""
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    asked = {target for job in jobs for group in job["static_configs"] for target in group["targets"]}
    served = {
        f"{name}:{service['environment']['RACKMETER_METRICS_PORT']}"
        for name, service in own_services().items()
        if service["restart"] != "no"
    }

    assert asked == served


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.host.yml"])
def test_every_target_says_its_stage(name: str) -> None:
    """The alerts name the stage also of a process that does not answer."""
    loaded = yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))
    (job,) = loaded["scrape_configs"]

    assert job["job_name"] == "rackmeter"
    assert [group["labels"]["stage"] for group in job["static_configs"]] == [*STAGES, "watch"]
    assert loaded["rule_files"] == ["rules.yml"]


def test_promtool_is_of_the_version_that_runs() -> None:
    """Rules are checked by the Prometheus that will read them: v3.13.4 is module v0.313.4."""
    match = re.search(r":v([0-9]+)\.([0-9]+)\.([0-9]+)@", services()["prometheus"]["image"])
    assert match
    major, minor, patch = (int(part) for part in match.groups())
    makefile = (DEPLOY.parent / "Makefile").read_text(encoding="utf-8")

    assert f"PROMTOOL_VERSION := v0.{100 * major + minor}.{patch}\n" in makefile


def test_the_board_is_well_formed() -> None:
    """Panels have ids of their own, do not overlap, and ask the data source that is provisioned."""
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    panels = board()["panels"]
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]
            assert panel["description"]

    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_board_lies_where_grafana_looks() -> None:
    """The folder that is provisioned is the folder that is mounted, and Prometheus has the name it is asked by."""
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/rackmeter.yml").read_text(encoding="utf-8"))
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    path = provider["providers"][0]["options"]["path"]

    assert f"./deploy/grafana/dashboards:{path}:ro" in compose()["services"]["grafana"]["volumes"]
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_every_metric_is_looked_at() -> None:
    """A metric that neither an alert nor the board asks for is measured for nobody."""
    asked = {name for _, query in QUERIES for name, _ in _selectors(query)}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            assert any(name.startswith(metric._name) for name in asked), metric._name
