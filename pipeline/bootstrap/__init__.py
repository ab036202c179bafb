"""The only place that wires: settings become adapters, adapters become stages and jobs."""

from pipeline.bootstrap.collector import owner_database, run_collector
from pipeline.bootstrap.jobs import adopt_log, close_periods, replay_trace, settle_duplicates, verify, verify_books
from pipeline.bootstrap.looking import event_finder, trace_event
from pipeline.bootstrap.payments import payment_gateways, reconcile_payments, retry_payment
from pipeline.bootstrap.stages import (
    CHARGES_TOPIC,
    EVENTS_TOPIC,
    STAGES,
    TOTALS_TOPIC,
    Stage,
    build_stage,
    catalogue_view,
    database,
    exit_code_of,
    run_stage,
    totals_worker,
)

__all__ = [
    "CHARGES_TOPIC",
    "EVENTS_TOPIC",
    "STAGES",
    "TOTALS_TOPIC",
    "Stage",
    "adopt_log",
    "build_stage",
    "catalogue_view",
    "close_periods",
    "database",
    "event_finder",
    "exit_code_of",
    "owner_database",
    "payment_gateways",
    "reconcile_payments",
    "replay_trace",
    "retry_payment",
    "run_collector",
    "run_stage",
    "settle_duplicates",
    "totals_worker",
    "trace_event",
    "verify",
    "verify_books",
]
