"""usage.totals and billing.charges: schema, examples and decoder agree; one bad member leaves its neighbours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.contracts.charge import Charge, decode_charges, pack_charges
from pipeline.contracts.packing import BYTES_MAX, ITEMS_MAX, pack_items
from pipeline.contracts.usage_total import decode_totals, pack_totals
from pipeline.domain.errors import RejectedRecord
from pipeline.runtime.settings import schemas_dir
from tests.unit.rate.test_rules import price, rate, segment, total

DECODERS: dict[str, Callable[[bytes], Any]] = {"usage.totals": decode_totals, "billing.charges": decode_charges}


def schema(topic: str) -> jsonschema.Draft202012Validator:
    text = (schemas_dir() / "events" / topic / "v1.schema.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def examples(kind: str) -> list[Any]:
    folder = schemas_dir() / "examples"
    found = [(topic, path) for topic in DECODERS for path in sorted((folder / topic / "v1" / kind).glob("*.json"))]
    return [pytest.param(topic, path, id=f"{topic}-{path.stem}") for topic, path in found]


@pytest.mark.parametrize(("topic", "path"), examples("valid"))
def test_a_valid_example_validates_and_decodes(topic: str, path: Path) -> None:
    """What the schema accepts, the decoder takes whole."""
    schema(topic).validate(json.loads(path.read_bytes()))
    assert DECODERS[topic](path.read_bytes()).refused == ()


@pytest.mark.parametrize(("topic", "path"), examples("invalid"))
def test_an_invalid_example_is_refused_by_both(topic: str, path: Path) -> None:
    """What the schema refuses, the decoder refuses, as a message or as its one member."""
    assert not schema(topic).is_valid(json.loads(path.read_bytes()))
    try:
        batch = DECODERS[topic](path.read_bytes())
    except RejectedRecord:
        return
    assert len(batch.refused) == 1


def test_what_we_send_is_what_the_schema_says() -> None:
    """Packed totals and the charges made of them validate and come back equal."""
    totals = [total(segment(1, "7200")), total(), total(segment(9, "1"), currency="EUR")]
    charges: list[Charge] = [rate(one, price(1)) for one in totals]
    (packed_totals,) = pack_totals(4, totals)
    (packed_charges,) = pack_charges(4, charges)
    schema("usage.totals").validate(json.loads(packed_totals))
    schema("billing.charges").validate(json.loads(packed_charges))
    assert decode_totals(packed_totals).totals == tuple(totals)
    assert decode_charges(packed_charges).charges == tuple(charges)


def test_a_malformed_total_leaves_its_neighbours() -> None:
    """One member that is no total is named; the others are read."""
    (packed,) = pack_totals(1, [total(segment(1, "1"))])
    good = packed[packed.index(b"[") + 1 : -2]
    batch = decode_totals(b'{"generation":1,"totals":[' + good + b',{"item":"\xff"},{"revision":0},' + good + b"]}")
    assert len(batch.totals) == 2
    assert len(batch.refused) == 2


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b'{"generation":1}', b'{"generation":1,"totals":[', b"null"])
def test_a_message_that_is_no_batch_is_rejected(value: bytes) -> None:
    """It is refused with a code, never half read."""
    with pytest.raises(RejectedRecord) as refused:
        decode_totals(value)
    assert refused.value.reason_code == "totals_invalid"


def test_messages_are_bounded_in_items_and_bytes() -> None:
    """At most 500 items and 512 KiB a message, in order, nothing left out; a larger item goes alone."""
    items = [b"%d" % number for number in range(ITEMS_MAX + 1)]
    messages = pack_items(1, "totals", items)
    assert [len(json.loads(message)["totals"]) for message in messages] == [ITEMS_MAX, 1]
    large = [b'"' + b"x" * size + b'"' for size in (BYTES_MAX // 2, BYTES_MAX // 2, 2 * BYTES_MAX, 5)]
    messages = pack_items(1, "totals", large)
    assert [len(json.loads(message)["totals"]) for message in messages] == [1, 1, 1, 1]
    assert [len(message) <= BYTES_MAX for message in messages] == [True, True, False, True]
    assert pack_items(1, "totals", []) == []
