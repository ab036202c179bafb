-- Totals: what each subscription item used in a period, absolute and versioned.

CREATE TABLE billed_item (
    billed_item_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id      text NOT NULL,
    subscription_id text NOT NULL REFERENCES subscription,
    item            text NOT NULL,
    period_start    timestamptz NOT NULL,
    period_end      timestamptz NOT NULL,
    subject         text NOT NULL,             -- '' where the price is not per server
    UNIQUE (subscription_id, item, period_start, subject),
    CONSTRAINT billed_item_period_ck CHECK (period_end > period_start)
);
CREATE INDEX billed_item_account_idx ON billed_item (account_id, period_start);  -- the gate and the cut

-- A mark expanded to an item, so that a mark that maps to several items is not lost with the first.
CREATE TABLE dirty_item (
    mark_number    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    billed_item_id bigint NOT NULL REFERENCES billed_item
);
CREATE INDEX dirty_item_item_idx ON dirty_item (billed_item_id);

CREATE TABLE usage_total (
    billed_item_id bigint PRIMARY KEY REFERENCES billed_item,
    generation     integer NOT NULL,
    revision       bigint NOT NULL,
    segments       jsonb NOT NULL,             -- [{price_version_id, from, to, quantity}] ascending; quantity a decimal string
    computed_at    timestamptz NOT NULL DEFAULT now(),
    sent_at        timestamptz,                -- last time it was put on usage.totals
    send_count     integer NOT NULL DEFAULT 0,
    CONSTRAINT usage_total_revision_ck CHECK (revision > 0)
);
