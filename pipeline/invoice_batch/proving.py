"""What a proof says becomes state: drafts are proven or withdrawn, accounts that owe nothing are closed or opened."""

import logging
from collections.abc import Mapping, Sequence

from pipeline.domain.period import Period
from pipeline.invoice_batch import rules, store
from pipeline.invoice_batch.model import (
    Account,
    AccountResult,
    Draft,
    Listener,
    Outcome,
    Ports,
    ProofResult,
    Reason,
    Step,
)
from pipeline.runtime.postgres import Connection

log = logging.getLogger("rackmeter.invoice_batch")

_NOT_COVERED = ProofResult(ok=False, report={}, differences=["the proof did not cover it"])

OVERTAKEN = Reason("overtaken", "another close of this month was at work at the same time; close it again")


def prove_drafts(
    connection: Connection, ports: Ports, invoice_ids: Sequence[str], tell: Listener
) -> dict[str, tuple[Draft, tuple[str, ...]]]:
    """
    Prove those of the invoices that are drafts; each ends proven, or withdrawn with its period open again.

    A verdict is about the draft that was there before the proof: one that another run put in its place is left alone.

    Returns:
        Invoice id -> draft and differences, of those that are not proven.
    """
    drafts = store.drafts(connection, invoice_ids)
    if not drafts:
        return {}
    results = ports.prove(connection, [draft.invoice_id for draft in drafts])
    failed: dict[str, tuple[Draft, tuple[str, ...]]] = {}
    for draft in drafts:
        result = results.get(draft.invoice_id, _NOT_COVERED)
        if result.ok:
            with connection.transaction():
                is_recorded = store.record_proof(connection, draft, result)
            if is_recorded:
                tell(Step.PROVEN, draft.invoice_id)
            continue
        failed[draft.invoice_id] = (draft, tuple(result.differences))
        _report(f"invoice {draft.invoice_id}", draft.account_id, result)
        # Under the account's lock: another closer finds the draft with its period cut, or neither.
        with store.account_lock(connection, draft.account_id), connection.transaction():
            is_withdrawn = store.withdraw(connection, draft, result.differences)
        if is_withdrawn:
            tell(Step.WITHDRAWN, draft.invoice_id)
    return failed


def close_without_invoice(
    connection: Connection, ports: Ports, waiting: Sequence[tuple[Account, Period]], tell: Listener
) -> dict[str, AccountResult]:
    """
    Close the periods whose cut found nothing, if the proof says that nothing is owed; else open them again.

    Args:
        waiting: Accounts, each once, with the period; in state `closing`.

    Returns:
        Account id -> what became of it.
    """
    if not waiting:
        return {}
    verdicts = ports.prove_nothing_owed(connection, [(account.account_id, period) for account, period in waiting])
    return {account.account_id: _settle(connection, account, period, verdicts, tell) for account, period in waiting}


def _settle(
    connection: Connection, account: Account, period: Period, verdicts: Mapping[str, ProofResult], tell: Listener
) -> AccountResult:
    account_id = account.account_id
    month = rules.month_label(period.start, account.time_zone)
    verdict = verdicts.get(account_id, _NOT_COVERED)
    with store.account_lock(connection, account_id), connection.transaction():
        state = store.period_state(connection, account_id, period)
        if state == "closing":
            # Nobody posts to a closing account; but it may have been opened and marked again while we were proving.
            is_clear = verdict.ok and not store.untaken_postings(connection, account_id, period)
            state = "closed" if is_clear else "open"
            store.set_period_state(connection, account_id, period, state)
            if not verdict.ok:
                store.record_failure(connection, account_id, period, verdict.differences, None)
    if not verdict.ok:
        _report(f"that {account_id} owes nothing for {month}", account_id, verdict)
        return AccountResult(account_id, month, Outcome.PROOF_FAILED, differences=tuple(verdict.differences))
    if state != "closed":
        return AccountResult(account_id, month, Outcome.HELD, reasons=(OVERTAKEN,))
    tell(Step.OWES_NOTHING, f"{account_id} {month}")
    return AccountResult(account_id, month, Outcome.NOTHING_TO_BILL)


def _report(what: str, account_id: str, result: ProofResult) -> None:
    log.error(
        "%s is not proven: %s",
        what,
        "; ".join(result.differences),
        extra={"action": "proof_failed", "account": account_id},
    )
