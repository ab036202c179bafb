"""The files that are deployed, as the tests read them."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from tests.tidy.source import ROOT

DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
OPERATIONS = ROOT / "docs" / "operations.md"
INSTALL = ROOT / "docs" / "install.md"


@cache
def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors merged."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def services() -> dict[str, dict[str, Any]]:
    """The services by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def own_services() -> dict[str, dict[str, Any]]:
    """The services that run our own image."""
    return {name: service for name, service in services().items() if service["image"].startswith("rackmeter:")}


@cache
def alert_rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    loaded = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


@cache
def board() -> dict[str, Any]:
    """The Grafana board."""
    loaded: dict[str, Any] = json.loads(
        (DEPLOY / "grafana" / "dashboards" / "rackmeter.json").read_text(encoding="utf-8")
    )
    return loaded


def queries() -> Iterator[tuple[str, str]]:
    """Every PromQL text that is deployed, with where it stands."""
    for rule in alert_rules():
        yield rule["alert"], rule["expr"]
    for panel in board()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
