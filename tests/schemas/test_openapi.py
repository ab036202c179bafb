"""The HTTP contract that is kept is the one that is served."""

import json
import os

from pipeline.runtime.settings import schemas_dir
from pipeline.web.app import contract
from tests.unit.web.desk import Desk

FILE = schemas_dir() / "openapi" / "collector.json"


def test_the_kept_contract_is_current() -> None:
    """A change shows in review, for senders do not change with it; RACKMETER_APPROVE=1 writes the new one."""
    if os.environ.get("RACKMETER_APPROVE"):
        text = json.dumps(contract(Desk().app()), indent=2, ensure_ascii=False)
        FILE.write_text(text + "\n", encoding="utf-8")
    assert json.loads(FILE.read_text(encoding="utf-8")) == contract(Desk().app())


def test_every_operation_but_health_asks_for_a_token() -> None:
    """The document says so for each path."""
    document = contract(Desk().app())
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path != "/healthz")


def test_every_reference_leads_somewhere() -> None:
    """A schema that is named is defined."""
    document = contract(Desk().app())
    text = json.dumps(document)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.partition('"')[0] in document["components"]["schemas"]
