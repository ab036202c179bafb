"""Rows that only the database's owner can change, and the words by which the proof names each change."""

#: A line's text, its steps, and what of an issued document is not a quantity or an amount.
DOCUMENT_CASES = {
    "line description": (
        ["UPDATE invoice_line SET description = description || ' (special)' WHERE line_number = 1"],
        ["line 1 of invoice RM-2013-000", "reads", "the lines of its document are not its lines: line 1: description"],
    ),
    "step of a line": (
        [
            ("UPDATE invoice_line SET breakdown = jsonb_set(breakdown, '{0,steps,0,quantity}', '\"1\"')"
             " WHERE line_number = 1"),
        ],
        ["steps of the price", "the lines of its document are not its lines: line 1: segments"],
    ),
    "label of a step": (
        [
            ("UPDATE invoice_line SET breakdown = jsonb_set(breakdown, '{0,steps,0,label}', '\"free\"')"
             " WHERE line_number = 1"),
        ],
        ["steps of the price"],
    ),
    "price of a step": (
        ["UPDATE invoice_line SET breakdown = jsonb_set(breakdown, '{0,price}', '\"gold\"') WHERE line_number = 1"],
        ["steps of the price"],
    ),
    "steps taken away": (
        ["UPDATE invoice_line SET breakdown = '[]' WHERE line_number = 1"],
        ["steps of the price"],
    ),
    "steps of a booked charge": (
        [("UPDATE booked_charge SET breakdown = '[]'"
          " WHERE billed_item_id = (SELECT min(billed_item_id) FROM billed_item)")],
        ["booked charge of", "steps of the price"],
    ),
    "end of a line's period": (
        ["UPDATE invoice_line SET service_period_end = service_period_end + interval '1 day' WHERE line_number = 1"],
        ["is not a calendar month"],
    ),
    "due date": (
        ["UPDATE invoice SET due_on = due_on + 30"],
        ["due_on of its document"],
    ),
    "issue date": (
        ["UPDATE invoice SET issued_on = issued_on + 1"],
        ["issued_on of its document"],
    ),
    "seller": (
        [
            ("INSERT INTO seller (seller, name, number_prefix, time_zone, known_number)"
             " VALUES ('other', 'Other', 'OT', 'UTC', 1)"),
            "UPDATE invoice SET seller = 'other' WHERE account_id = 'acme'",
        ],
        ["seller.id of its document"],
    ),
    "period reopened": (
        ["UPDATE billing_period SET state = 'open' WHERE account_id = 'acme'"],
        ["its billing period is open, and it is issued"],
    ),
    "period lost": (
        ["DELETE FROM billing_period WHERE account_id = 'acme'"],
        ["its billing period is missing, and it is issued"],
    ),
}  # fmt: skip

_FORGED = (
    "WITH item AS (SELECT * FROM billed_item WHERE account_id = 'acme' ORDER BY billed_item_id LIMIT 1), forged AS ("
    " INSERT INTO ledger_transaction (key, kind, billed_item_id, revision)"
    " SELECT {key}, {kind}, {item}, 99 FROM item RETURNING ledger_transaction_id)"
    " INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency, account_id, period_start)"
    " SELECT ledger_transaction_id, ledger_account_id, CASE a.kind WHEN 'unbilled' THEN 5 ELSE -5 END, a.currency,"
    " 'acme', period_start FROM forged, item, ledger_account a"
    " WHERE a.name IN ('unbilled:acme:EUR', 'revenue:compute:EUR')"
)

#: What is booked and posted for items, whether an invoice took it or not.
BOOKS_CASES = {
    "charge removed": (
        [("DELETE FROM booked_charge WHERE billed_item_id ="
          " (SELECT min(billed_item_id) FROM booked_charge WHERE amounts <> '[]')")],
        ["nothing is booked for"],
    ),
    "charge of an older revision": (
        ["UPDATE booked_charge SET revision = 0"],
        ["is booked at revision 0, the cut took"],
    ),
    "charge not rated": (
        ["UPDATE booked_charge SET outcome = 'failed', revision = revision + 1"],
        ["is booked at revision"],
    ),
    "total of an older revision": (
        ["UPDATE usage_total SET revision = 1", "UPDATE booked_charge SET revision = 2"],
        ["is booked at revision 2, its total is at 1"],
    ),
    "total removed": (
        ["DELETE FROM usage_total WHERE billed_item_id = (SELECT min(billed_item_id) FROM booked_charge)"],
        ["it has no total"],
    ),
    "segments of a total": (
        ["UPDATE usage_total SET segments = jsonb_set(segments, '{0,quantity}', '\"7\"')"],
        ["total of", "quantity"],
    ),
    "posting added": (
        [_FORGED.format(key="'usage:' || billed_item_id || ':1:99'", kind="'usage'", item="billed_item_id")],
        ["acme-main", "posted", "booked"],
    ),
    "posting added and booked": (
        [
            _FORGED.format(key="'usage:' || billed_item_id || ':1:99'", kind="'usage'", item="billed_item_id"),
            ("UPDATE usage_total SET revision = 99 WHERE billed_item_id ="
             " (SELECT min(billed_item_id) FROM billed_item WHERE account_id = 'acme')"),
            ("UPDATE booked_charge SET revision = 99, amounts = jsonb_set(amounts, '{0,amount}',"
             " to_jsonb(((amounts #>> '{0,amount}')::numeric + 5)::text))"
             " WHERE billed_item_id = (SELECT min(billed_item_id) FROM billed_item WHERE account_id = 'acme')"),
        ],
        ["recomputed"],
    ),
    "posting for no item": (
        [_FORGED.format(key="'anything'", kind="'usage'", item="NULL")],
        ["transaction", "(anything)", "is for nothing there is"],
    ),
    "posting for no invoice": (
        [_FORGED.format(key="'invoice:inv_nothing'", kind="'invoice'", item="NULL")],
        ["(invoice:inv_nothing)", "is for nothing there is"],
    ),
    "posting for no payment": (
        [_FORGED.format(key="'payment:inv_nothing:1'", kind="'payment'", item="NULL")],
        ["(payment:inv_nothing:1)", "is for nothing there is"],
    ),
    "posting of another period": (
        [("UPDATE ledger_entry SET period_start = period_start + interval '31 days' WHERE ledger_entry_id ="
          " (SELECT max(ledger_entry_id) FROM ledger_entry JOIN ledger_transaction USING (ledger_transaction_id)"
          " WHERE kind = 'usage')")],
        ["is posted to another account or period than its item's"],
    ),
    "item of another account": (
        ["UPDATE billed_item SET account_id = 'brick' WHERE account_id = 'acme'"],
        ["is posted to another account or period than its item's"],
    ),
    "payment of another amount": (
        [("INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency)"
          " SELECT invoice_id, 1, 'manual', invoice_id || ':1', total_minor + 1, currency FROM invoice")],
        ["payment attempt 1 of invoice RM-2013-0001", "asks for"],
    ),
    "payment under another reference": (
        [("INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency,"
          " state, reference)"
          " SELECT invoice_id, 1, 'manual', invoice_id || ':1', total_minor, currency, 'requested', 'RF00RM20130009'"
          " FROM invoice")],
        ["payment attempt 1 of invoice RM-2013-0001", "RF59RM20130001"],
    ),
    "payment nobody posted": (
        [("INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency,"
          " state, reference, settled_at)"
          " SELECT invoice_id, 1, 'stripe', invoice_id || ':1', total_minor, currency, 'succeeded', 'pi_1', now()"
          " FROM invoice")],
        ["payment attempt 1 of invoice RM-2013-0001", "is posted"],
    ),
}  # fmt: skip

#: What totals are summed from beside buckets, and what later slots are computed from.
USAGE_CASES = {
    "day": (
        ["UPDATE usage_day SET quantity = quantity + 0.000000000000001 WHERE day = '2013-07-15'"],
        ["day of", "2013-07-15"],
    ),
    "day removed": (
        ["DELETE FROM usage_day WHERE day = '2013-07-15'"],
        ["day of", "quantity missing"],
    ),
    "day added": (
        ["INSERT INTO usage_day SELECT series_id, '2013-07-25', 1 FROM series"],
        ["day of", "recomputed nothing"],
    ),
    "sample": (
        [("UPDATE usage_sample SET readings = readings || '{\"cpu\": 77}' WHERE ctid IN"
          " (SELECT ctid FROM usage_sample ORDER BY occurred_at LIMIT 1)")],
        ["samples of"],
    ),
    "sample moved": (
        [("UPDATE usage_sample SET occurred_at = occurred_at + interval '1 second' WHERE ctid IN"
          " (SELECT ctid FROM usage_sample ORDER BY occurred_at LIMIT 1)")],
        ["samples of"],
    ),
    "sample removed": (
        ["DELETE FROM usage_sample WHERE ctid IN (SELECT ctid FROM usage_sample ORDER BY occurred_at LIMIT 1)"],
        ["samples of"],
    ),
}  # fmt: skip
