-- Gateways that move money: whom to charge, what an attempt may become, and the posting of what was paid.

ALTER TABLE billing_account
    ADD COLUMN payment_customer text NOT NULL DEFAULT '', -- the gateway's name for the buyer
    ADD COLUMN payment_method   text NOT NULL DEFAULT '', -- the gateway's name for the card; never card data
    ADD CONSTRAINT billing_account_payment_ck CHECK (payment_gateway <> 'stripe'
        OR (payment_customer ~ '^cus_[A-Za-z0-9]+$' AND payment_method ~ '^(pm|card|src)_[A-Za-z0-9_]+$'));

-- As they were when the intent was written: a request that is repeated says the same, whatever the account says by then.
ALTER TABLE payment_attempt
    ADD COLUMN payment_customer text NOT NULL DEFAULT '',
    ADD COLUMN payment_method   text NOT NULL DEFAULT '',
    ADD CONSTRAINT payment_attempt_amount_ck CHECK (amount_minor > 0),
    ADD CONSTRAINT payment_attempt_settled_ck CHECK ((state IN ('succeeded', 'declined')) = (settled_at IS NOT NULL));

-- The next attempt begins when the last one is declined; after one that succeeded there is none.
CREATE UNIQUE INDEX payment_attempt_open_key ON payment_attempt (invoice_id) WHERE state <> 'declined';

ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_kind_ck;
ALTER TABLE ledger_account ADD CONSTRAINT ledger_account_kind_ck
    CHECK (kind IN ('unbilled', 'receivable', 'revenue', 'rounding', 'cash'));
ALTER TABLE ledger_transaction DROP CONSTRAINT ledger_transaction_kind_ck;
ALTER TABLE ledger_transaction ADD CONSTRAINT ledger_transaction_kind_ck
    CHECK (kind IN ('usage', 'invoice', 'payment'));

-- An attempt only takes its outcome, and a definite one is its last.
CREATE FUNCTION refuse_attempt_change_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    by_outcome CONSTANT text[] := '{state,reference,detail,settled_at}';
BEGIN
    IF OLD.state IN ('succeeded', 'declined') THEN
        RAISE EXCEPTION 'attempt % has its outcome and never changes; make another one', OLD.idempotency_key
            USING ERRCODE = 'restrict_violation';
    ELSIF to_jsonb(NEW) - by_outcome IS DISTINCT FROM to_jsonb(OLD) - by_outcome THEN
        RAISE EXCEPTION 'attempt % only takes its outcome', OLD.idempotency_key USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER payment_attempt_outcome_only BEFORE UPDATE ON payment_attempt
    FOR EACH ROW EXECUTE FUNCTION refuse_attempt_change_v1();
CREATE TRIGGER payment_attempt_kept BEFORE DELETE OR TRUNCATE ON payment_attempt
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

-- Money that came is in the books: its transaction is posted before the attempt says so.
CREATE FUNCTION refuse_unposted_payment_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ledger_transaction WHERE key = 'payment:' || NEW.idempotency_key AND kind = 'payment') THEN
        RAISE EXCEPTION 'attempt % succeeded and is not posted', NEW.idempotency_key
            USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_attempt_posted_ck';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER payment_attempt_posted AFTER INSERT OR UPDATE ON payment_attempt
    FOR EACH ROW WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION refuse_unposted_payment_v1();
