-- The sealed books: committed ledger transactions in an order of their own, chained by hash.

-- Which database transaction posted it. Ids of ours are given out before a transaction commits and say nothing about
-- what is committed; below the oldest one running, everything is.
ALTER TABLE ledger_transaction ADD COLUMN posted_xid xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX ledger_transaction_posted_idx ON ledger_transaction (posted_xid, ledger_transaction_id);  -- the sealer's next ones

CREATE TABLE ledger_chain (
    position              bigint PRIMARY KEY,  -- from 1, without gap
    ledger_transaction_id bigint NOT NULL UNIQUE REFERENCES ledger_transaction,
    hash                  bytea NOT NULL,      -- sha256 of the hash before it and of the transaction with its entries
    sealed_at             timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ledger_chain_position_ck CHECK (position > 0),
    CONSTRAINT ledger_chain_hash_ck CHECK (octet_length(hash) = 32)
);

-- What is added goes on where the chain ends; of two that go on from one end, the primary key refuses the second.
CREATE FUNCTION refuse_chain_gap_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    added record;
BEGIN
    SELECT count(*) AS count, min(position) AS first, max(position) AS last INTO added FROM inserted;
    IF added.count > 0 AND (added.last - added.first + 1 <> added.count
        OR added.first > 1 AND NOT EXISTS (SELECT FROM ledger_chain WHERE position = added.first - 1)) THEN
        RAISE EXCEPTION 'positions % to % do not go on where the chain ends', added.first, added.last
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_chain_gap_ck';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_chain_gap AFTER INSERT ON ledger_chain REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_chain_gap_v1();
CREATE TRIGGER ledger_chain_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_chain
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

GRANT SELECT, INSERT ON ledger_chain TO rackmeter_app;
