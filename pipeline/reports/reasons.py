"""Reason codes of events that do not count: what each means and what to do; docs/reasons.md has the same codes."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason code in words: what is the matter, and the next step."""

    meaning: str
    to_do: str


_SEND_AGAIN = "Mend the sender and let it send the event again under the same id: the good one counts."
_DROP = " Or `rackmeter quarantine drop` it."

REASONS: Mapping[str, Reason] = {
    "json_invalid": Reason("The bytes are no JSON that every program reads alike.", _SEND_AGAIN + _DROP),
    "batch_invalid": Reason("The array is empty or cannot be taken apart; none of it counted.", _SEND_AGAIN + _DROP),
    "batch_too_large": Reason("More than 100 events in one array; none of it counted.", "Send fewer in one." + _DROP),
    "envelope_invalid": Reason("An attribute is missing or is of the wrong type.", _SEND_AGAIN + _DROP),
    "specversion_unsupported": Reason("`specversion` is not 1.0.", _SEND_AGAIN + _DROP),
    "name_invalid": Reason("A name is empty, too long, or has control characters.", _SEND_AGAIN + _DROP),
    "time_missing": Reason("There is no `time`.", _SEND_AGAIN + _DROP),
    "time_invalid": Reason("`time` is no instant: no zone, a day that is not, out of range.", _SEND_AGAIN + _DROP),
    "time_future": Reason(
        "`time` is more than 5 minutes ahead of the log's own clock.",
        "Set the sender's clock; it may send the event again under the same id once its time has come." + _DROP,
    ),
    "subject_missing": Reason("It does not say which server was measured.", _SEND_AGAIN + _DROP),
    "value_missing": Reason("`data` lacks a member that a meter reads.", _SEND_AGAIN + _DROP),
    "value_invalid": Reason("A value is no number.", _SEND_AGAIN + _DROP),
    "value_negative": Reason("A value is below zero.", _SEND_AGAIN + _DROP),
    "value_out_of_range": Reason("A value has more than 18 digits before the point.", _SEND_AGAIN + _DROP),
    "value_too_precise": Reason("A value has more than 9 digits after the point.", _SEND_AGAIN + _DROP),
    "control_invalid": Reason("A control event says nothing that we understand.", _SEND_AGAIN + _DROP),
    "key_mismatch": Reason(
        "It was sent under a Kafka key that is not its source.", "Send it again with the source as the key." + _DROP
    ),
    "unknown_meter": Reason(
        "No meter reads events of this type at this time.",
        "Add a meter, or the type to `ignore`, and `rackmeter catalogue apply`: what waits is decided about again "
        "by itself." + _DROP,
    ),
    "behind_retention": Reason(
        "It happened before the retention edge: its slots are settled and may be dropped.",
        "`rackmeter quarantine drop` it; rebuilding dropped slots is not here yet.",
    ),
    "unsequenced_id": Reason("Its id is not of the form epoch-number.", "Send it by an emitter of ours." + _DROP),
    "misrouted": Reason(
        "It lies on another partition than its source's home.",
        "Let the producer partition by murmur2 (librdkafka: partitioner=murmur2_random) and send it again." + _DROP,
    ),
    "too_sparse": Reason(
        "The numbers of its epoch lie in too many pieces to be remembered.",
        "Let the sender number its events one by one; begin a new epoch for it." + _DROP,
    ),
    "event_too_large": Reason("One event is larger than a message may be; the collector refused it.", _SEND_AGAIN),
    "source_forbidden": Reason(
        "The token may not send for this source; the collector refused it.",
        "Send under a source of the token's prefix, or have a token made for this one.",
    ),
    "content_differs": Reason(
        "It has the identity of another event and says something else. The one that came first counts.",
        "Find out which is right. A sender that was restored or cloned needs a state of its own. Then drop it here.",
    ),
}
