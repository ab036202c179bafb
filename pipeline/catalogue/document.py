"""The catalogue document: YAML in, values out, or every problem in it at once with file, line and field.

The document's shape is published as schemas/catalogue.schema.json; what a schema cannot say is in `check`.
"""

from pathlib import Path

from pipeline.catalogue import entries
from pipeline.catalogue.check import check
from pipeline.catalogue.marked_yaml import Tree, read_text, read_tree
from pipeline.catalogue.model import Account, Catalogue, Meter, Plan, Price, Seller, Subscription
from pipeline.catalogue.section import Section

DOCUMENT_VERSION = "1"


def read_catalogue(path: Path) -> Catalogue:
    """Read and check a catalogue file; raises Problems, or ConfigurationFault where it cannot be read."""
    return parse_catalogue(read_text(path), str(path))


def parse_catalogue(text: str, file: str) -> Catalogue:
    """Read and check a catalogue; `file` is what problems call it. Raises Problems."""
    tree, report = read_tree(text, file)
    root = Section(tree, "", report)
    check_version(root)
    sellers: dict[str, Seller] = {}
    meters: dict[str, Meter] = {}
    prices: dict[str, Price] = {}
    plans: dict[str, Plan] = {}
    for name, section in root.sections("sellers"):
        seller = entries.read_seller(name, section)
        if section.finish():
            sellers[name] = seller
    for name, section in root.sections("meters"):
        meter = entries.read_meter(name, section)
        if section.finish() and meter is not None:
            meters[name] = meter
    for name, section in root.sections("prices"):
        price = entries.read_price(name, section)
        if section.finish() and price is not None:
            prices[name] = price
    for name, section in root.sections("plans"):
        plan = entries.read_plan(name, section)
        if section.finish():
            plans[name] = plan
    declared = {name: _names(tree, name) for name in ("sellers", "meters", "prices", "plans", "accounts")}
    accounts, subscriptions = _read_accounts(root, declared["sellers"])
    ignored = root.texts("ignore")
    root.finish()
    catalogue = Catalogue(sellers, meters, prices, plans, accounts, subscriptions, ignored, text)
    check(catalogue, declared, report)
    report.raise_if_any()
    return catalogue


def check_version(root: Section) -> None:
    """Report a document that does not say `version: 1`."""
    version = root.tree("version")
    if version is None:
        root.problem("version", f"is missing; write version: {DOCUMENT_VERSION}")
    elif version != DOCUMENT_VERSION:
        root.problem("version", f"is not {DOCUMENT_VERSION}, the only one there is")


def _read_accounts(root: Section, sellers: list[str]) -> tuple[dict[str, Account], dict[str, Subscription]]:
    only_seller = sellers[0] if len(sellers) == 1 else None
    accounts: dict[str, Account] = {}
    subscriptions: dict[str, Subscription] = {}
    seen: set[str] = set()
    for account_id, section in root.sections("accounts"):
        account = entries.read_account(account_id, section, only_seller)
        for subscription_id, inner in section.sections("subscriptions"):
            if subscription_id in seen:
                inner.problem("", "is there twice; a subscription's name is its own across all accounts")
            seen.add(subscription_id)
            subscription = entries.read_subscription(subscription_id, account, inner)
            if inner.finish():
                subscriptions[subscription_id] = subscription
        if section.finish():
            accounts[account_id] = account
    return accounts, subscriptions


def _names(tree: Tree, key: str) -> list[str]:
    members = tree.get(key) if isinstance(tree, dict) else None
    return list(members) if isinstance(members, dict) else []
