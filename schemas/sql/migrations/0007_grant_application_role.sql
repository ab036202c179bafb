-- Stages run as rackmeter_app: it may add to the books, and change only what is meant to change.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rackmeter_app') THEN
        CREATE ROLE rackmeter_app NOLOGIN;
    END IF;
    EXECUTE format('GRANT rackmeter_app TO %I', current_user);
END $$;
GRANT USAGE ON SCHEMA public TO rackmeter_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO rackmeter_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO rackmeter_app;
GRANT UPDATE ON log, consumer_offset, partition_tally, identity_epoch, source_completeness, source_subject, decision,
    lost_number, known_number, billing_account, seller, usage_bucket, usage_day, usage_total,
    booked_charge, billing_period, invoice, number_series, payment_attempt TO rackmeter_app;
GRANT DELETE ON dirty_mark, dirty_item, invoice, invoice_line, invoice_entry TO rackmeter_app;
REVOKE INSERT, UPDATE ON schema_migration, installation FROM rackmeter_app;
