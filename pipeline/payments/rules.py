"""Which outcome may follow which state of an attempt; pure."""

from pipeline.payments.gateway import AttemptState, OutcomeState

#: Definite: nothing follows.
SETTLED: frozenset[AttemptState] = frozenset({"succeeded", "declined"})


def may_follow(state: AttemptState, outcome: OutcomeState) -> bool:
    """
    Whether an attempt in this state takes this outcome.

    What was requested stays so until the money came or will not come: a gateway that does not answer changes nothing.
    """
    if state == "requested":
        return outcome in SETTLED
    return state not in SETTLED
