"""Schema, examples and decoder of usage.events hold together."""

import json
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest

from pipeline.contracts.usage_event import (
    HOST_SAMPLE_FIELDS,
    HOST_SAMPLE_TYPE,
    Rejection,
    decode_event,
    reading_decoder,
    split_message,
)
from pipeline.domain.errors import RejectedRecord

REPO = Path(__file__).parents[2]
SCHEMA = REPO / "schemas/events/usage.events/v1.schema.json"
EXAMPLES = REPO / "schemas/examples/usage.events/v1"
VALID = sorted((EXAMPLES / "valid").iterdir())
INVALID = sorted((EXAMPLES / "invalid").iterdir())
REASONS = (REPO / "docs/reasons.md").read_text(encoding="utf-8")

#: Right by the schema and wrong all the same: what JSON Schema cannot say.
BEYOND_THE_SCHEMA = {
    "json_invalid--half-a-character.txt",
    "json_invalid--member-twice.txt",
    "json_invalid--value-twice.txt",
    "name_invalid--half-a-character.txt",
    "time_invalid--no-such-day.json",
    "value_missing--no-memory.json",
    "value_too_precise--number.json",
    "value_too_precise--tiny-exponent.json",
}

read_host_sample = reading_decoder(HOST_SAMPLE_FIELDS)


def reasons_of(message: bytes) -> list[str]:
    """The reason codes the decoder finds in a message, in order."""
    parts = split_message(message)
    if isinstance(parts, RejectedRecord):
        return [parts.reason_code]
    reasons = []
    for part in parts:
        event = decode_event(part)
        if isinstance(event, Rejection):
            reasons.append(event.reason)
        elif event.type == HOST_SAMPLE_TYPE:
            try:
                read_host_sample(event.data)
            except RejectedRecord as rejected:
                reasons.append(rejected.reason_code)
    return reasons


def is_right_by_schema(message: bytes) -> bool:
    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        instance = json.loads(message.decode("utf-8"), parse_float=Decimal, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    return validator.is_valid(instance)


def test_schema_is_json_schema() -> None:
    """The schema itself is valid JSON Schema 2020-12."""
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.name)
def test_valid_example(path: Path) -> None:
    """The schema takes each valid example, and the decoder finds nothing wrong in it."""
    assert is_right_by_schema(path.read_bytes())
    assert reasons_of(path.read_bytes()) == []


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.name)
def test_invalid_example(path: Path) -> None:
    """The decoder gives each invalid example the reason its name says, and the schema refuses it where it can."""
    assert reasons_of(path.read_bytes()) == [path.name.split("--")[0]]
    assert is_right_by_schema(path.read_bytes()) == (path.name in BEYOND_THE_SCHEMA)


def test_every_reason_of_an_example_is_documented() -> None:
    """docs/reasons.md names each reason code there is an example of."""
    assert [path.name for path in INVALID if f"| `{path.name.split('--')[0]}` |" not in REASONS] == []


def test_every_reason_of_the_decoder_has_an_example() -> None:
    """Each code that docs/reasons.md gives to the decoder has an invalid example."""
    rows = [line.split("|") for line in REASONS.splitlines() if line.startswith("| `")]
    of_decoder = {cells[1].strip(" `") for cells in rows if len(cells) == 5 and "decoder" in cells[3] + cells[2]}
    of_decoder |= {cells[1].strip(" `") for cells in rows if len(cells) == 5 and "as above" in cells[3]}
    assert of_decoder == {path.name.split("--")[0] for path in INVALID}
