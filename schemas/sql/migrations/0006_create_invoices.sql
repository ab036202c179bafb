-- Closing a period: cut, lines, proof, number, document, payment attempt.

CREATE TABLE billing_period (
    account_id   text NOT NULL REFERENCES billing_account,
    period_start timestamptz NOT NULL,
    period_end   timestamptz NOT NULL,
    state        text NOT NULL DEFAULT 'open',
    changed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, period_start),
    CONSTRAINT billing_period_span_ck CHECK (period_end > period_start),
    CONSTRAINT billing_period_state_ck CHECK (state IN ('open', 'closing', 'cut', 'closed'))
);

CREATE TABLE invoice (
    invoice_id     text PRIMARY KEY,           -- deterministic from account and period
    account_id     text NOT NULL REFERENCES billing_account,
    period_start   timestamptz NOT NULL,
    period_end     timestamptz NOT NULL,
    currency       text NOT NULL,
    state          text NOT NULL DEFAULT 'draft',
    cut            jsonb NOT NULL,             -- offsets, known number, digests of catalogue, assignments and manifest
    total_minor    bigint NOT NULL,
    seller         text NOT NULL REFERENCES seller,
    number         text UNIQUE,
    issued_on      date,
    due_on         date,
    proven_at      timestamptz,
    proof          jsonb,                      -- what was compared
    document       jsonb,                      -- the invoice as issued
    document_digest text,                      -- sha256 of its canonical JSON
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, period_start),         -- one invoice per account and period
    FOREIGN KEY (account_id, period_start) REFERENCES billing_period,
    CONSTRAINT invoice_state_ck CHECK (state IN ('draft', 'proven', 'issued')),
    CONSTRAINT invoice_proven_ck CHECK (state = 'draft' OR (proven_at IS NOT NULL AND proof IS NOT NULL)),
    CONSTRAINT invoice_issued_ck CHECK ((state = 'issued') = (number IS NOT NULL AND issued_on IS NOT NULL
        AND due_on IS NOT NULL AND document IS NOT NULL AND document_digest IS NOT NULL))
);

CREATE TABLE invoice_line (
    invoice_id   text NOT NULL REFERENCES invoice,
    line_number  integer NOT NULL,
    subscription_id text NOT NULL,
    item         text NOT NULL,
    product      text NOT NULL,
    service_period_start timestamptz NOT NULL,
    service_period_end   timestamptz NOT NULL,
    subject      text NOT NULL,
    description  text NOT NULL,
    quantity     numeric NOT NULL,             -- in the meter's unit, as of the cut
    amount_exact numeric(38, 12) NOT NULL,     -- as posted and taken
    amount_minor bigint NOT NULL,              -- rounded once, half up
    breakdown    jsonb NOT NULL,
    PRIMARY KEY (invoice_id, line_number)
);

-- Which entry was taken by which invoice: each at most once.
CREATE TABLE invoice_entry (
    ledger_entry_id bigint PRIMARY KEY REFERENCES ledger_entry,
    invoice_id      text NOT NULL,
    line_number     integer NOT NULL,
    FOREIGN KEY (invoice_id, line_number) REFERENCES invoice_line
);

CREATE INDEX invoice_entry_line_idx ON invoice_entry (invoice_id, line_number);  -- what a line took

-- Why a draft was withdrawn, or an account not believed to owe nothing. For people: nothing is decided by it.
CREATE TABLE proof_failure (
    invoice_id   text NOT NULL,                -- of the draft, which is gone; the period's next one has the same id
    account_id   text NOT NULL,
    period_start timestamptz NOT NULL,
    failed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    differences  text[] NOT NULL,              -- sentences
    cut          jsonb,                        -- of the draft; null: there was nothing to cut
    PRIMARY KEY (invoice_id, failed_at),
    FOREIGN KEY (account_id, period_start) REFERENCES billing_period
);
CREATE TRIGGER proof_failure_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON proof_failure
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

-- Gap-free numbers per legal entity and series.
CREATE TABLE number_series (
    seller      text NOT NULL REFERENCES seller,
    series      text NOT NULL,
    number_next integer NOT NULL DEFAULT 1,
    PRIMARY KEY (seller, series)
);

-- An invoice begins as a draft, which may be changed and withdrawn. Once proven it only takes its number; once issued it
-- never changes.
CREATE FUNCTION refuse_settled_invoice_change_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    by_issue CONSTANT text[] := '{state,number,issued_on,due_on,document,document_digest}';
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'draft' THEN
            RAISE EXCEPTION 'invoice % does not begin as a draft', NEW.invoice_id USING ERRCODE = 'restrict_violation';
        END IF;
    ELSIF OLD.state = 'issued' THEN
        RAISE EXCEPTION 'invoice % is issued and never changes; correct it by a new document', OLD.invoice_id
            USING ERRCODE = 'restrict_violation';
    ELSIF OLD.state = 'proven' AND (TG_OP = 'DELETE' OR NEW.state = 'draft'
        OR to_jsonb(NEW) - by_issue IS DISTINCT FROM to_jsonb(OLD) - by_issue) THEN
        RAISE EXCEPTION 'invoice % is proven and only takes its number', OLD.invoice_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER invoice_issued_frozen BEFORE INSERT OR UPDATE OR DELETE ON invoice
    FOR EACH ROW EXECUTE FUNCTION refuse_settled_invoice_change_v1();
CREATE TRIGGER invoice_never_emptied BEFORE TRUNCATE ON invoice
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

-- Lines and what they take come and go with a draft. The share lock keeps it one until we commit.
CREATE FUNCTION refuse_settled_line_change_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    line record;
    found_state text;
BEGIN
    IF TG_OP = 'DELETE' THEN line := OLD; ELSE line := NEW; END IF;
    SELECT state INTO found_state FROM invoice WHERE invoice_id = line.invoice_id FOR SHARE;
    IF found_state <> 'draft' THEN
        RAISE EXCEPTION 'invoice % is %, and so are its rows of %', line.invoice_id, found_state, TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN line;
END $$;
CREATE TRIGGER invoice_line_settled BEFORE INSERT OR DELETE ON invoice_line
    FOR EACH ROW EXECUTE FUNCTION refuse_settled_line_change_v1();
CREATE TRIGGER invoice_entry_settled BEFORE INSERT OR DELETE ON invoice_entry
    FOR EACH ROW EXECUTE FUNCTION refuse_settled_line_change_v1();
CREATE TRIGGER invoice_line_never_changed BEFORE UPDATE OR TRUNCATE ON invoice_line
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER invoice_entry_never_changed BEFORE UPDATE OR TRUNCATE ON invoice_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

CREATE TABLE payment_attempt (
    invoice_id      text NOT NULL REFERENCES invoice,
    attempt_number  integer NOT NULL,
    gateway         text NOT NULL,
    idempotency_key text NOT NULL UNIQUE,      -- invoice id and attempt number: the same until a definite outcome
    amount_minor    bigint NOT NULL,
    currency        text NOT NULL,
    state           text NOT NULL DEFAULT 'intended',
    reference       text NOT NULL DEFAULT '',
    detail          text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now(),
    settled_at      timestamptz,
    PRIMARY KEY (invoice_id, attempt_number),
    CONSTRAINT payment_attempt_state_ck CHECK (state IN ('intended', 'requested', 'succeeded', 'declined', 'unknown'))
);
