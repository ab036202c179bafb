-- Double entry. A positive amount is a debit, a negative one a credit; posted entries never change.

CREATE TABLE ledger_account (
    ledger_account_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text NOT NULL UNIQUE,    -- e.g. unbilled:acme:EUR, revenue:compute:EUR
    kind              text NOT NULL,
    account_id        text REFERENCES billing_account,
    product           text,
    currency          text NOT NULL,
    CONSTRAINT ledger_account_kind_ck CHECK (kind IN ('unbilled', 'receivable', 'revenue', 'rounding')),
    CONSTRAINT ledger_account_owner_ck CHECK ((kind IN ('unbilled', 'receivable')) = (account_id IS NOT NULL)),
    CONSTRAINT ledger_account_product_ck CHECK ((kind = 'revenue') = (product IS NOT NULL))
);

CREATE TABLE ledger_transaction (
    ledger_transaction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key            text NOT NULL UNIQUE,       -- deterministic: same key, same content
    kind           text NOT NULL,
    billed_item_id bigint REFERENCES billed_item,
    revision       bigint,
    booked_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ledger_transaction_kind_ck CHECK (kind IN ('usage', 'invoice'))
);

CREATE TABLE ledger_entry (
    ledger_entry_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ledger_transaction_id bigint NOT NULL REFERENCES ledger_transaction,
    ledger_account_id     bigint NOT NULL REFERENCES ledger_account,
    amount                numeric(38, 12) NOT NULL,
    currency              text NOT NULL,
    account_id            text,                -- billing account whose service it is
    period_start          timestamptz,         -- service period it is for
    CONSTRAINT ledger_entry_amount_ck CHECK (amount <> 0)
);
CREATE INDEX ledger_entry_transaction_idx ON ledger_entry (ledger_transaction_id);
CREATE INDEX ledger_entry_account_idx ON ledger_entry (ledger_account_id, period_start);  -- balances and the cut

-- Entries of a transaction are inserted by one statement; that statement must balance, per currency, to zero.
CREATE FUNCTION refuse_imbalance_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    bad record;
BEGIN
    SELECT ledger_transaction_id, currency, sum(amount) AS balance INTO bad
    FROM inserted GROUP BY ledger_transaction_id, currency HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction % is out of balance by % %', bad.ledger_transaction_id, bad.balance, bad.currency
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entry_balance_ck';
    END IF;
    SELECT i.ledger_transaction_id, i.currency INTO bad
    FROM inserted i JOIN ledger_account a USING (ledger_account_id) WHERE a.currency <> i.currency LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction % posts % to an account of another currency', bad.ledger_transaction_id, bad.currency
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entry_currency_ck';
    END IF;
    SELECT i.ledger_transaction_id INTO bad
    FROM (SELECT ledger_transaction_id, min(ledger_entry_id) AS first_id FROM inserted GROUP BY 1) i
    JOIN ledger_entry e ON e.ledger_transaction_id = i.ledger_transaction_id AND e.ledger_entry_id < i.first_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction % is posted already; correct it by a new one', bad.ledger_transaction_id
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'ledger_entry_posted_ck';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_entry_balance AFTER INSERT ON ledger_entry REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_imbalance_v1();

CREATE TRIGGER ledger_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER ledger_transaction_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transaction
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

-- What is posted for an item, one row: taken by lock, so two sinks cannot both read "posted 0".
CREATE TABLE booked_charge (
    billed_item_id bigint PRIMARY KEY REFERENCES billed_item,
    generation     integer NOT NULL,
    revision       bigint NOT NULL,
    outcome        text NOT NULL,
    reason         text NOT NULL DEFAULT '',   -- why it is not rated
    quantity       numeric NOT NULL,           -- of all segments, in the meter's unit
    amounts        jsonb NOT NULL,             -- [{product, currency, amount}] as posted; decimals as strings
    breakdown      jsonb NOT NULL,             -- the steps of the price, for the invoice line
    booked_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT booked_charge_outcome_ck CHECK (outcome IN ('rated', 'no_price', 'failed'))
);
