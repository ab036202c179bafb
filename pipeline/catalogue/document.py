"""The catalogue document: YAML in, values out, or every problem in it at once with file, line and field.

The document's shape is published as schemas/catalogue.schema.json; what a schema cannot say is in `check`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.catalogue import entries
from pipeline.catalogue.check import check
from pipeline.catalogue.marked_yaml import read_text, read_tree
from pipeline.catalogue.model import Account, Catalogue, Subscription
from pipeline.catalogue.section import Section

_Entry = TypeVar("_Entry")

DOCUMENT_VERSION = "1"
SECTIONS = ("sellers", "meters", "prices", "plans")


def read_catalogue(path: Path) -> Catalogue:
    """Read and check a catalogue file; raises Problems."""
    return parse_catalogue(read_text(path), str(path))


def parse_catalogue(text: str, file: str) -> Catalogue:
    """Read and check a catalogue; `file` is what problems call it. Raises Problems."""
    tree, report = read_tree(text, file)
    root = Section(tree, "", report)
    check_version(root)
    sellers = _read_each(root, "sellers", entries.read_seller)
    accounts, subscriptions = _read_accounts(root, list(sellers))
    catalogue = Catalogue(
        sellers=sellers,
        meters=_read_each(root, "meters", entries.read_meter),
        prices=_read_each(root, "prices", entries.read_price),
        plans=_read_each(root, "plans", entries.read_plan),
        accounts=accounts,
        subscriptions={one.subscription_id: one for one in subscriptions},
        ignored_types=root.texts("ignore"),
        text=text,
        positions=report.positions,
    )
    root.finish()
    unreadable = {name for name in SECTIONS if not isinstance(root.tree(name), dict | None)}
    check(catalogue, subscriptions, unreadable, report)
    report.raise_if_any()
    return catalogue


def check_version(root: Section) -> None:
    """Report a document that does not say `version: 1`."""
    version = root.tree("version")
    if version is None:
        root.problem("version", f"is missing; write version: {DOCUMENT_VERSION}")
    elif version != DOCUMENT_VERSION:
        root.problem("version", f"is not {DOCUMENT_VERSION}, the only one there is")


def _read_each(root: Section, key: str, read: Callable[[str, Section], _Entry]) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for name, section in root.sections(key):
        found[name] = read(name, section)
        section.finish()
    return found


def _read_accounts(root: Section, sellers: list[str]) -> tuple[dict[str, Account], list[Subscription]]:
    """Accounts by name; and all subscriptions as written, also two of one name."""
    only_seller = sellers[0] if len(sellers) == 1 else None
    accounts: dict[str, Account] = {}
    subscriptions: list[Subscription] = []
    seen: set[str] = set()
    for account_id, section in root.sections("accounts"):
        account = entries.read_account(account_id, section, only_seller)
        for subscription_id, inner in section.sections("subscriptions"):
            if subscription_id in seen:
                inner.problem("", "is there twice; a subscription's name is its own across all accounts")
            seen.add(subscription_id)
            subscriptions.append(entries.read_subscription(subscription_id, account, inner))
            inner.finish()
        section.finish()
        accounts[account_id] = account
    return accounts, subscriptions
