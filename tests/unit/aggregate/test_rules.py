"""What is decided about each event, and in which order; decisions need nothing but the event, its place and memory."""

from dataclasses import replace

import pytest

from pipeline.aggregate.model import WHOLE_MESSAGE, EpochState
from pipeline.aggregate.rules import FUTURE_US_MAX, INTERVALS_MAX, MeterBook
from pipeline.domain.identity import IntervalSet
from tests.unit.aggregate.sending import (
    BASE_US,
    CALLS,
    CPU,
    EPOCH,
    HOURS,
    IGNORED,
    LOG_US,
    METERS,
    READINGS,
    READS,
    SAMPLE,
    SOURCE,
    Folding,
    batch,
    event,
    second,
    source_at,
)

BAD = {**READINGS, "cpu": -1}


def tally_adds_up(folding: Folding) -> bool:
    """Law 1: what a partition received is what was decided about it."""
    return all(
        progress.tally["received"] == sum(count for name, count in progress.tally.items() if name != "received")
        for progress in folding.progress.values()
    )


def test_a_good_event_counts_once_for_every_meter() -> None:
    """A sample is kept for the ordered meters, summed for `sum`, marks its slot for `active_hours`; no decision row."""
    folding = Folding()
    assert folding.send(event(at_us=second(301))) == ["counted"]
    folded = folding.fold.folded
    nano = 10**9
    assert folded.samples == {(SOURCE, "vm-1", SAMPLE): [(second(301), EPOCH, 1, {"cpu": nano, "reads": 2 * nano})]}
    assert folded.sums == {((CALLS.meter_version_id, "vm-1", ""), second(300)): 3 * nano}
    assert folded.active == {((HOURS.meter_version_id, "vm-1", ""), second(300))}
    assert folded.seen == {(SOURCE, "vm-1", SAMPLE): (second(301), second(301))}
    assert folding.decisions == []
    assert 1 in folding.state().counted


@pytest.mark.parametrize(
    ("value", "outcome", "reason"),
    [
        (event(1, data={"cpu": 1, "reads": 1}), "quarantined", "value_missing"),
        (event(1, data=BAD), "quarantined", "value_negative"),
        (event(1, data={**READINGS, "cpu": None}), "quarantined", "value_invalid"),
        (event(1, data={**READINGS, "cpu": "0.0000000001"}), "quarantined", "value_too_precise"),
        (event(1, data={**READINGS, "cpu": 10**18}), "quarantined", "value_out_of_range"),
        (event(1, subject=None), "quarantined", "subject_missing"),
        (event(1, at_us=LOG_US + FUTURE_US_MAX + 1), "quarantined", "time_future"),
        (event(1, event_id="mine-1"), "parked", "unsequenced_id"),
        (event(1, kind="test.other.v1"), "parked", "unknown_meter"),
        (event(1, kind=IGNORED), "ignored", "ignore_rule"),
        (event(1, kind="rackmeter.control.heartbeat.v1", data={}), "control", "heartbeat.v1"),
        (event(1, kind="rackmeter.control.nonsense.v1", data={}), "quarantined", "control_invalid"),
        (event(1).replace(b"1.0", b"9.9"), "quarantined", "specversion_unsupported"),
        (event(1).replace(b'"time"', b'"when"'), "quarantined", "time_missing"),
        (b"{", "quarantined", "json_invalid"),
        (b"", "quarantined", "json_invalid"),
        (None, "quarantined", "json_invalid"),
        (b"[]", "quarantined", "batch_invalid"),
        (batch(*[event(1)] * 101), "quarantined", "batch_too_large"),
    ],
)
def test_each_outcome_has_its_reason(value: bytes | None, outcome: str, reason: str) -> None:
    """What is not counted is recorded with its reason; what may be replayed keeps its bytes."""
    folding = Folding()
    assert folding.send(value) == [outcome]
    (decision,) = folding.decisions
    assert (decision.outcome, decision.reason) == (outcome, reason)
    kept = value or b""
    assert decision.payload == (kept if outcome in ("quarantined", "parked") else None)
    assert folding.fold.folded.samples == {}
    assert tally_adds_up(folding)


def test_the_order_of_checks() -> None:
    """Of all that is wrong with one event the first check that fails names the reason."""
    home, away = source_at(0, 2), 1
    folding = Folding({SAMPLE: METERS[SAMPLE]}, partition_count=2)
    far = LOG_US + 10 * FUTURE_US_MAX

    def reason(value: bytes, key: str, partition: int) -> str:
        folding.send(value, key=key.encode(), partition=partition)
        return folding.reasons[-1]

    everything_wrong = event(source=home, event_id="x", at_us=far, kind="test.other.v1", data={})
    sequenced = event(5, source=home, at_us=far, kind="test.other.v1", data={})
    assert reason(everything_wrong, "somebody", away) == "key_mismatch"
    assert reason(everything_wrong, home, away) == "misrouted"
    assert reason(everything_wrong, home, 0) == "unsequenced_id"
    assert reason(sequenced, home, 0) == "time_future"
    assert reason(event(5, source=home, at_us=far, kind=IGNORED), home, 0) == "time_future"
    assert reason(event(5, source=home, kind="test.other.v1", data={}), home, 0) == "unknown_meter"
    assert reason(event(5, source=home, data={}), home, 0) == "value_missing"
    assert folding.send(event(5, source=home), key=home.encode()) == ["counted"]
    assert reason(sequenced, home, 0) == "identity_seen"
    assert tally_adds_up(folding)


def test_decisions_are_made_event_by_event() -> None:
    """Trap 8: one bad event in a message of 100 loses itself only, and counts nobody else's place."""
    folding = Folding()
    events = [event(number) for number in range(1, 101)]
    events[41] = event(42, data=BAD)
    events[70] = event(3)
    outcomes = folding.send(batch(*events))
    assert [index for index, outcome in enumerate(outcomes) if outcome != "counted"] == [41, 70]
    assert [(d.position.index_in_message, d.reason) for d in folding.decisions] == [
        (41, "value_negative"),
        (70, "identity_seen"),
    ]
    assert folding.state().counted.count == 98
    assert folding.progress[0].tally == {"received": 100, "counted": 98, "quarantined": 1, "duplicate": 1}


def test_a_batch_that_cannot_be_taken_apart_is_one_decision() -> None:
    """Trap 8: its index is -1, its source the Kafka key, and it was received once."""
    folding = Folding()
    folding.send(event(1)[:-1])
    folding.send(b"[" + event(1) + b",")
    assert [d.position.index_in_message for d in folding.decisions] == [0, WHOLE_MESSAGE]
    assert folding.decisions[1].source == SOURCE
    assert folding.progress[0].tally == {"received": 2, "quarantined": 2}


def test_two_bad_halves_do_not_make_a_good_event() -> None:
    """Trap 10: events are decoded one by one, so what ends one message is never completed by the next."""
    whole = event(1)
    for cut in range(1, len(whole)):
        folding = Folding()
        assert folding.send(whole[:cut]) + folding.send(whole[cut:]) == ["quarantined", "quarantined"]
    inside = Folding()
    assert inside.send(b"[" + whole[:40]) + inside.send(whole[40:] + b"]") == ["quarantined", "quarantined"]


@pytest.mark.parametrize("first", [event(1, data=BAD), event(1).replace(b'"time"', b'"when"')])
def test_a_quarantined_identity_is_not_seen(first: bytes) -> None:
    """Trap 1: the mended event counts once, supersedes the bad one, and only then is the number a duplicate."""
    folding = Folding()
    outcomes = [folding.send(value)[0] for value in (first, first, event(1), event(1), first)]
    assert outcomes == ["quarantined", "quarantined", "counted", "duplicate", "duplicate"]
    assert not folding.state().quarantined
    assert len(folding.fold.folded.samples[SOURCE, "vm-1", SAMPLE]) == 1
    assert tally_adds_up(folding)


def test_parked_until_its_meter_is_known() -> None:
    """An event no meter reads is parked; sent again after its meter came, it counts once and supersedes that."""
    before = Folding({})
    assert before.send(event(1)) == ["parked"]
    assert before.state().parked.to_pairs() == [(1, 2)]
    after = Folding(epochs=before.epochs)
    assert after.send(event(1)) + after.send(event(1)) == ["counted", "duplicate"]
    assert not after.state().parked


def test_an_identity_has_one_state() -> None:
    """Parked, then quarantined, then parked, then ignored: each state replaces the one before."""
    folding = Folding({})
    seen = []
    for value in (event(1), event(1).replace(b'"time"', b'"when"'), event(1), event(1, kind=IGNORED)):
        folding.send(value)
        state = folding.state()
        seen.append([name for name in ("counted", "quarantined", "parked") if 1 in getattr(state, name)])
    assert seen == [["parked"], ["quarantined"], ["parked"], ["counted"]]


def test_a_duplicate_keeps_its_digest() -> None:
    """Trap 2: the second copy's bytes are evidence by digest, so other content under one identity is found."""
    folding = Folding()
    folding.send(event(1))
    folding.send(event(1))
    folding.send(event(1, data={**READINGS, "cpu": 7}))
    same, other = (decision.content_digest for decision in folding.decisions)
    assert same is not None
    assert other is not None
    assert same != other


def test_the_future_is_judged_by_the_log() -> None:
    """Trap 6: by the running maximum of the log's time; neither the wall clock nor a message's own lag counts."""
    folding = Folding()
    ahead = BASE_US + FUTURE_US_MAX
    assert folding.send(event(1, at_us=ahead + 1), log_time_us=BASE_US) == ["quarantined"]
    assert folding.send(event(2, at_us=ahead), log_time_us=BASE_US) == ["counted"]
    assert folding.send(event(3, at_us=ahead), log_time_us=BASE_US - 1) == ["counted"]
    assert folding.decisions[0].log_time_us == BASE_US
    assert folding.progress[0].log_time_us == BASE_US
    assert folding.send(event(4, at_us=BASE_US - 86_400_000_000 * 4000), log_time_us=BASE_US) == ["counted"]


def test_log_time_is_of_the_partition() -> None:
    """Trap 6: another partition's clock decides nothing here."""
    folding = Folding(partition_count=2)
    here, there = source_at(0, 2), source_at(1, 2)
    late = BASE_US + 2 * FUTURE_US_MAX
    folding.send(event(1, source=there), key=there.encode(), partition=1, log_time_us=late)
    assert folding.send(event(1, source=here, at_us=late), key=here.encode(), log_time_us=BASE_US) == ["quarantined"]


def test_misrouted_is_parked_and_leaves_no_identity() -> None:
    """Trap 5: an event outside its source's home is parked there, whatever its id, and its home still counts it."""
    folding = Folding(partition_count=8)
    source = source_at(3, 8)
    for partition in (0, 3, 3, 7):
        folding.send(event(1, source=source), key=source.encode(), partition=partition)
    assert [(d.position.partition, d.reason) for d in folding.decisions] == [
        (0, "misrouted"),
        (3, "identity_seen"),
        (7, "misrouted"),
    ]
    assert folding.progress[3].tally["counted"] == 1
    assert folding.state(source).counted.to_pairs() == [(1, 2)]
    assert not folding.state(source).parked


def test_a_bad_event_from_elsewhere_marks_no_identity() -> None:
    """Traps 1 and 5: a malformed or wrongly keyed event cannot touch the state of a source that may not be its own."""
    folding = Folding(partition_count=8)
    source = source_at(3, 8)
    broken = event(1, source=source).replace(b'"time"', b'"when"')
    folding.send(broken, key=source.encode(), partition=0)
    folding.send(broken, key=b"another", partition=3)
    folding.send(event(1, source=source), key=b"another", partition=3)
    assert folding.fold.folded.epochs == {}
    assert folding.state(source) == EpochState()
    assert folding.reasons == ["time_missing", "time_missing", "key_mismatch"]


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"urn:test:a ", b"x" * 300, b"\0"])
def test_the_key_is_the_source(key: bytes | None) -> None:
    """An event under another key is quarantined under its own source's name; the key alone is text or nothing."""
    folding = Folding()
    assert folding.send(event(1), key=key) == ["quarantined"]
    assert (folding.reasons, folding.decisions[0].source) == (["key_mismatch"], SOURCE)
    folding.send(b"not json", key=key)
    assert folding.decisions[1].source == (key.decode() if key == b"urn:test:a " else None)


def test_too_sparse_is_parked() -> None:
    """Trap 9: a sender whose every number is an interval is parked, unless the number joins one that is there."""
    odd = IntervalSet.from_pairs((number, number + 1) for number in range(1, 2 * INTERVALS_MAX, 2))
    folding = Folding(epochs={(SOURCE, EPOCH): EpochState(counted=odd)})
    after = 2 * INTERVALS_MAX
    assert folding.send(event(after + 5)) == ["parked"]
    assert folding.reasons == ["too_sparse"]
    assert folding.send(event(after)) == ["counted"]
    assert folding.send(event(2)) == ["counted"]
    assert folding.send(event(after + 5)) == ["counted"]
    assert folding.state().counted.interval_count == INTERVALS_MAX


@pytest.mark.parametrize(("value", "name"), [(BAD, "quarantined"), (READINGS, "parked")])
def test_what_is_kept_of_bad_events_is_bounded(value: dict[str, int | str | None], name: str) -> None:
    """Trap 9: sparse numbers of events that are not counted cost no memory either; each still has its decision."""
    odd = IntervalSet.from_pairs((number, number + 1) for number in range(1, 2 * INTERVALS_MAX, 2))
    kept = EpochState(quarantined=odd) if name == "quarantined" else EpochState(parked=odd)
    folding = Folding(METERS if name == "quarantined" else {}, epochs={(SOURCE, EPOCH): kept})
    after = 2 * INTERVALS_MAX
    for number in (after + 5, after, 2, 1, after + 6):
        assert folding.send(event(number, data=value)) == [name]
    assert getattr(folding.state(), name).interval_count <= INTERVALS_MAX
    assert [number in getattr(folding.state(), name) for number in (after + 5, after, 2, 1)] == [
        False,
        True,
        True,
        True,
    ]
    assert folding.fold.folded.event_count == 5


def test_complete_until_keeps_what_was_said_last() -> None:
    """The control event with the highest number counts, in whatever order they come; `retired` is for ever."""
    folding = Folding()
    control = "rackmeter.control.complete_until.v1"
    folding.send(event(9, kind=control, subject=None, data={"until": "2013-07-01T02:00:00+02:00"}))
    folding.send(event(4, kind=control, subject=None, data={"until": "2013-08-01T00:00:00Z"}))
    assert folding.fold.folded.completeness == {(SOURCE, EPOCH, ""): (BASE_US, 9)}
    folding.send(event(10, kind="rackmeter.control.retired.v1", subject=None, data={}))
    assert folding.fold.folded.completeness == {(SOURCE, EPOCH, ""): (None, 10)}
    folding.send(event(11, kind=control, subject="vm-1", data={"until": "2013-07-02T00:00:00Z"}))
    assert set(folding.fold.folded.completeness) == {(SOURCE, EPOCH, ""), (SOURCE, EPOCH, "vm-1")}
    assert folding.state().counted.to_pairs() == [(4, 5), (9, 12)]
    assert [d.outcome for d in folding.decisions] == ["control"] * 4


def test_dropped_numbers_are_settled_and_may_still_come() -> None:
    """A declared hole is no hole; what comes of it later counts all the same."""
    folding = Folding()
    folding.send(event(9, kind="rackmeter.control.dropped.v1", subject=None, data={"first": 2, "last": 8}))
    assert folding.state().dropped.to_pairs() == [(2, 9)]
    assert (SOURCE, EPOCH) in folding.fold.folded.epochs
    assert folding.send(event(5)) == ["counted"]
    assert folding.send(event(5)) == ["duplicate"]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("complete_until", {}),
        ("complete_until", {"until": 5}),
        ("complete_until", {"until": "2013-07-01T00:00:00"}),
        ("dropped", {}),
        ("dropped", {"first": 3, "last": 2}),
        ("dropped", {"first": 0, "last": 2}),
        ("dropped", {"first": 1, "last": 10**12}),
        ("dropped", {"first": "1", "last": "2"}),
    ],
)
def test_control_events_that_say_nonsense_change_nothing(kind: str, data: dict[str, int | str | None]) -> None:
    """Such an event is quarantined: its number is no hole, and nothing is settled or complete by it."""
    folding = Folding()
    assert folding.send(event(1, kind=f"rackmeter.control.{kind}.v1", subject=None, data=data)) == ["quarantined"]
    assert folding.reasons == ["control_invalid"]
    assert folding.fold.folded.completeness == {}
    assert replace(folding.state(), first_seen_us=0) == EpochState(quarantined=IntervalSet.from_pairs([(1, 2)]))


def test_an_event_is_read_by_the_versions_of_its_own_time() -> None:
    """Trap 21: a new meter version reads from its slot edge on, whenever the event is processed."""
    edge = second(900)
    book = {
        SAMPLE: [replace(CALLS, to_us=edge), replace(CALLS, meter_version_id=7, value_field="requests", from_us=edge)]
    }
    for at_us, version in ((edge - 1, 3), (edge, 7), (second(0), 3)):
        folding = Folding(book)
        assert folding.send(event(at_us=at_us, data={"calls": 1, "requests": 2})) == ["counted"]
        assert [key[0] for key, _ in folding.fold.folded.sums] == [version]
    early = Folding({SAMPLE: [replace(CALLS, from_us=edge)]})
    assert early.send(event(at_us=edge - 1)) == ["parked"]


def test_a_meter_of_hours_alone_reads_no_value() -> None:
    """Where only `active_hours` reads an event type, any data will do."""
    folding = Folding({SAMPLE: [HOURS]})
    assert folding.send(event(data={})) == ["counted"]
    assert len(folding.fold.folded.active) == 1
    assert folding.fold.folded.samples == {}


def test_what_lies_behind_the_retention_edge_is_parked() -> None:
    """An event before it changes nothing and keeps its bytes; one at it counts; what is no usage is taken as ever."""
    folding = Folding(edge_us=second(600))
    assert folding.send(event(1, at_us=second(600) - 1)) == ["parked"]
    assert folding.send(event(2, at_us=second(600))) == ["counted"]
    assert folding.send(event(3, at_us=second(0), kind=IGNORED)) == ["ignored"]
    assert folding.send(event(4, at_us=second(0), kind="test.other.v1")) == ["parked"]
    assert folding.send(event(5, at_us=second(0), kind="rackmeter.control.retired.v1", data={})) == ["control"]
    assert folding.reasons[0] == "behind_retention"
    assert "2013-07-01T00:10:00+00:00" in folding.decisions[0].detail
    assert folding.decisions[0].payload is not None
    assert "unknown_meter" in folding.reasons
    assert 1 in folding.state().parked


def test_the_book_names_meters_and_orders_them() -> None:
    """Every version of every ordered meter over a type is given, and a version's meter is known by its id."""
    book = MeterBook(METERS, ())
    assert book.ordered_meters(SAMPLE) == [CPU, READS]
    assert book.ordered_meters("test.other.v1") == []
    assert book.meter_name(3) == "calls"


def test_sums_of_a_flush_are_exact() -> None:
    """The largest values allowed add up to the last of their 27 digits."""
    folding = Folding({SAMPLE: [CALLS]})
    for number in range(1, 101):
        folding.send(event(number, at_us=second(number), data={"calls": "999999999999999999.999999999"}))
    assert folding.fold.folded.sums == {((3, "vm-1", ""), BASE_US): 100 * (10**27 - 1)}
