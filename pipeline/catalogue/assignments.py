"""Who has which server, and what is an item charged by, at each instant; and assignments read from YAML."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pipeline.catalogue.document import check_version
from pipeline.catalogue.marked_yaml import read_text, read_tree
from pipeline.catalogue.model import ALWAYS, Assignment, Binding, Subscription
from pipeline.catalogue.section import TEXT_LENGTH_MAX, Section

FOREVER = datetime.max.replace(tzinfo=UTC)
"""Stands for "no end" where times are ordered."""


class Ownership(NamedTuple):
    """A subject belongs to a subscription in [valid_from, valid_to); `valid_to` None means from then on."""

    valid_from: datetime
    valid_to: datetime | None
    subscription_id: str


class EffectiveBinding(NamedTuple):
    """What an item is charged by in [effective_from, effective_to); `effective_to` None means from then on."""

    effective_from: datetime
    effective_to: datetime | None
    meter: str
    price_version_id: int


def effective(assignments: Iterable[Assignment], subject: str) -> list[Ownership]:
    """Who owns a subject when: ascending, disjoint, neighbours of one owner joined, times without owner left out.

    At each instant the assignment with the highest known number that covers it says who the owner is.
    """
    newest_first = sorted(
        (one for one in assignments if one.subject == subject), key=lambda one: one.known_number, reverse=True
    )
    edges = sorted({edge for one in newest_first for edge in (one.valid_from, one.valid_to or FOREVER)})
    found: list[Ownership] = []
    for start, stop in pairwise(edges):
        owner = next(
            (one.subscription_id for one in newest_first if one.valid_from <= start < (one.valid_to or FOREVER)), None
        )
        if owner is None:
            continue
        valid_to = None if stop == FOREVER else stop
        if found and found[-1].subscription_id == owner and found[-1].valid_to == start:
            found[-1] = found[-1]._replace(valid_to=valid_to)
        else:
            found.append(Ownership(start, valid_to, owner))
    return found


def effective_bindings(rows: Iterable[Binding], subscription_id: str, item: str) -> list[EffectiveBinding]:
    """The spans of an item, ascending and without overlap.

    At an instant the row with the latest `effective_from` at or before it holds; of rows with the same one, the row
    with the highest known number.
    """
    latest: dict[datetime, Binding] = {}
    for row in rows:
        if (row.subscription_id, row.item) != (subscription_id, item):
            continue
        known = latest.get(row.effective_from)
        if known is None or row.known_number > known.known_number:
            latest[row.effective_from] = row
    spans: list[EffectiveBinding] = []
    for at in sorted(latest):
        row = latest[at]
        if spans and (spans[-1].meter, spans[-1].price_version_id) == (row.meter, row.price_version_id):
            continue
        if spans:
            spans[-1] = spans[-1]._replace(effective_to=at)
        spans.append(EffectiveBinding(at, None, row.meter, row.price_version_id))
    return spans


def read_assignments(
    path: Path, zones: Mapping[str, str], subscriptions: Mapping[str, Subscription]
) -> list[Assignment]:
    """Read and check an assignments file; see `parse_assignments`."""
    return parse_assignments(read_text(path), str(path), zones, subscriptions)


def parse_assignments(
    text: str, file: str, zones: Mapping[str, str], subscriptions: Mapping[str, Subscription]
) -> list[Assignment]:
    """Read assignments in the order of the file, later ones winning; raises Problems with all that is wrong.

    Args:
        text: YAML; shape in schemas/assignments.schema.json.
        file: What problems call it.
        zones: Time zone of each known subscription; a date is local midnight there (of UTC where nobody is named).
        subscriptions: Those of `zones`, as stored.
    """
    tree, report = read_tree(text, file)
    root = Section(tree, "", report)
    check_version(root)
    found: list[Assignment] = []
    servers = Section(root.tree("servers"), "servers", report)
    for subject in servers.rest():
        path = servers.at(subject)
        if not subject or len(subject) > TEXT_LENGTH_MAX or not subject.isprintable():
            servers.problem(subject, "is not the name of a server")
        # Read again as one list member each, so that the server's name may hold dots.
        for section in servers.items(subject):
            found.append(_read_one(subject, section, zones, subscriptions))
            section.finish()
        if servers.tree(subject) in (None, []):
            report.add(path, "has no assignments")
    root.finish()
    report.raise_if_any()
    return found


def _read_one(
    subject: str, section: Section, zones: Mapping[str, str], subscriptions: Mapping[str, Subscription]
) -> Assignment:
    subscription = section.name("subscription") if section.has("subscription") else None
    section.tree("subscription")
    if subscription and subscription not in zones:
        section.problem("subscription", f"{subscription!r} is not a subscription of the catalogue")
    zone_name = zones.get(subscription or "", "UTC")
    valid_from = section.time("from", zone_name, is_required=True)
    valid_to = section.time("to", zone_name)
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        section.problem("to", "is not after from")
    payer = subscriptions.get(subscription or "")
    if payer is not None and valid_from is not None and not payer.is_running_at(valid_from):
        section.problem("from", f"{subscription} is not running then")
    # Where there is no time, there is a problem, and nothing of the file is used.
    return Assignment(0, subject, subscription, valid_from or ALWAYS, valid_to)
