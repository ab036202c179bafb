-- name: lock_known_number
-- Held to the commit, so that a lower number is never seen later than a higher one.
SELECT last FROM known_number FOR UPDATE

-- name: take_known_numbers
-- Under lock_known_number: the caller owns the last %(count)s numbers up to the one returned.
UPDATE known_number SET last = last + %(count)s RETURNING last

-- name: hold_meters
-- Alone, to the commit: no flush of aggregate, which shares this lock, counts events by the meters there were before.
SELECT pg_advisory_xact_lock(hashtextextended('rackmeter:meters', 0))

-- name: counted_until
-- The latest event time that was counted, by event type.
SELECT event_type, max(last_at) FROM source_subject GROUP BY event_type

-- name: latest_catalogue_digest
SELECT digest FROM catalogue_version ORDER BY known_number DESC LIMIT 1

-- name: insert_catalogue_version
INSERT INTO catalogue_version (known_number, digest, document)
VALUES (%(known_number)s, %(digest)s, %(document)s)

-- name: insert_meter
INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max,
                           effective_from, known_number)
VALUES (%(meter)s, %(version)s, %(event_type)s, %(aggregation)s, %(value_field)s, %(unit)s, %(slot_seconds)s,
        %(gap_seconds_max)s, %(effective_from)s, %(known_number)s)

-- name: insert_price
INSERT INTO price_version (price, version, model, product, currency, unit, base_units, parameters, digest, known_number)
VALUES (%(price)s, %(version)s, %(model)s, %(product)s, %(currency)s, %(unit)s, %(base_units)s, %(parameters)s,
        %(digest)s, %(known_number)s)
RETURNING price_version_id

-- name: insert_ignore_rule
INSERT INTO ignore_rule (event_type, known_number) VALUES (%(event_type)s, %(known_number)s)

-- name: queue_parked
-- Events that waited for a meter, or a word on their type, are decided about again by the stage that parked them. Under
-- hold_meters no flush parks another one by the meters there were before.
INSERT INTO decision_queue (topic, partition, log_offset, index_in_message, said_by)
SELECT d.topic, d.partition, d.log_offset, d.index_in_message, 'catalogue'
FROM decision d JOIN log ON log.topic = d.topic AND log.set_aside_from IS NULL
WHERE d.outcome = 'parked' AND d.reason = 'unknown_meter' AND NOT d.settled AND d.event_type = ANY(%(event_types)s::text[])
ON CONFLICT DO NOTHING

-- name: put_seller
INSERT INTO seller (seller, name, address, tax_id, bank_account, number_prefix, time_zone, known_number)
VALUES (%(seller)s, %(name)s, %(address)s, %(tax_id)s, %(bank_account)s, %(number_prefix)s, %(time_zone)s,
        %(known_number)s)
ON CONFLICT (seller) DO UPDATE SET
    name = excluded.name, address = excluded.address, tax_id = excluded.tax_id, bank_account = excluded.bank_account,
    known_number = excluded.known_number

-- name: put_account
-- Currency, zone and seller are not updated: `changes` refuses other ones.
INSERT INTO billing_account (account_id, name, address, currency, time_zone, seller, gate_policy, payment_gateway,
                             payment_terms_days, payment_customer, payment_method, known_number)
VALUES (%(account_id)s, %(name)s, %(address)s, %(currency)s, %(time_zone)s, %(seller)s, %(gate_policy)s,
        %(payment_gateway)s, %(payment_terms_days)s, %(payment_customer)s, %(payment_method)s, %(known_number)s)
ON CONFLICT (account_id) DO UPDATE SET
    name = excluded.name, address = excluded.address, gate_policy = excluded.gate_policy,
    payment_gateway = excluded.payment_gateway, payment_terms_days = excluded.payment_terms_days,
    payment_customer = excluded.payment_customer, payment_method = excluded.payment_method,
    known_number = excluded.known_number

-- name: insert_subscription
INSERT INTO subscription (subscription_id, account_id, plan, starts_at, known_number)
VALUES (%(subscription_id)s, %(account_id)s, %(plan)s, %(starts_at)s, %(known_number)s)

-- name: insert_subscription_end
-- Null: no end any more.
INSERT INTO subscription_end (known_number, subscription_id, ends_at)
VALUES (%(known_number)s, %(subscription_id)s, %(ends_at)s)

-- name: insert_binding
INSERT INTO price_binding (known_number, subscription_id, item, meter, price_version_id, effective_from)
VALUES (%(known_number)s, %(subscription_id)s, %(item)s, %(meter)s, %(price_version_id)s, %(effective_from)s)

-- name: insert_assignment
INSERT INTO assignment (known_number, subject, subscription_id, valid_from, valid_to, said_by)
VALUES (%(known_number)s, %(subject)s, %(subscription_id)s, %(valid_from)s, coalesce(%(valid_to)s::timestamptz, 'infinity'),
        %(said_by)s)

-- name: mark_dirty
-- One of subject and subscription_id is null.
INSERT INTO dirty_mark (subject, subscription_id, time_from, time_to)
VALUES (%(subject)s, %(subscription_id)s, %(time_from)s, coalesce(%(time_to)s::timestamptz, 'infinity'))

-- name: load_meters
SELECT meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max, effective_from,
       meter_version_id
FROM meter_version
ORDER BY event_type, meter, version

-- name: load_ignore_rules
SELECT event_type FROM ignore_rule ORDER BY event_type

-- name: load_prices
-- Null asks for all.
SELECT price, version, model, product, currency, unit, base_units, parameters, price_version_id
FROM price_version
WHERE %(price_version_ids)s::integer[] IS NULL OR price_version_id = ANY (%(price_version_ids)s::integer[])
ORDER BY price, version

-- name: load_bindings
-- Null asks for all.
SELECT known_number, subscription_id, item, meter, price_version_id, effective_from
FROM price_binding
WHERE (%(subscription_ids)s::text[] IS NULL OR subscription_id = ANY (%(subscription_ids)s::text[]))
  AND (%(known_number_max)s::bigint IS NULL OR known_number <= %(known_number_max)s::bigint)
ORDER BY subscription_id, item, effective_from, known_number

-- name: load_assignments
-- Null asks for all. Uses assignment_subject_idx where subjects are named.
SELECT known_number, subject, subscription_id, valid_from, nullif(valid_to, 'infinity') AS valid_to
FROM assignment
WHERE (%(subjects)s::text[] IS NULL OR subject = ANY (%(subjects)s::text[]))
  AND (%(known_number_max)s::bigint IS NULL OR known_number <= %(known_number_max)s::bigint)
ORDER BY known_number

-- name: load_sellers
SELECT seller, name, address, tax_id, bank_account, number_prefix, time_zone FROM seller ORDER BY seller

-- name: load_accounts
SELECT account_id, name, address, currency, time_zone, seller, gate_policy, payment_gateway, payment_terms_days,
       payment_customer, payment_method
FROM billing_account
ORDER BY account_id

-- name: load_subscriptions
SELECT subscription_id, account_id, plan, starts_at, ends_at FROM subscription_span ORDER BY subscription_id

-- name: subscription_zones
SELECT subscription_id, time_zone
FROM subscription JOIN billing_account USING (account_id)
ORDER BY subscription_id
