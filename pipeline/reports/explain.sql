-- name: explained_lines
-- Lines of an invoice (one, or all), each with the item it charges.
SELECT l.line_number, l.description, l.product, l.service_period_start, l.service_period_end, l.quantity, l.amount_exact,
    l.amount_minor, l.breakdown, n.currency, i.billed_item_id
FROM invoice_line l
JOIN invoice n USING (invoice_id)
LEFT JOIN billed_item i ON i.subscription_id = l.subscription_id AND i.item = l.item
    AND i.period_start = l.service_period_start AND i.subject = l.subject
WHERE l.invoice_id = %(invoice_id)s AND (%(line)s::integer IS NULL OR l.line_number = %(line)s)
ORDER BY l.line_number

-- name: taken_postings
-- What a line took, as it was booked.
SELECT t.ledger_transaction_id, t.key, t.booked_at, t.revision, e.amount, e.currency
FROM invoice_entry taken JOIN ledger_entry e USING (ledger_entry_id) JOIN ledger_transaction t USING (ledger_transaction_id)
WHERE taken.invoice_id = %(invoice_id)s AND taken.line_number = %(line)s
ORDER BY t.booked_at, e.ledger_entry_id

-- name: item_total
-- An item with its present total, and what is booked of it.
SELECT i.account_id, i.subscription_id, i.item, nullif(i.subject, '') AS server, i.period_start, i.period_end,
    b.time_zone, t.generation, t.revision, t.computed_at, t.segments, c.revision AS booked_revision, c.outcome, c.reason,
    c.breakdown
FROM billed_item i
JOIN billing_account b USING (account_id)
LEFT JOIN usage_total t USING (billed_item_id)
LEFT JOIN booked_charge c USING (billed_item_id)
WHERE i.billed_item_id = %(billed_item_id)s

-- name: item_usage
-- Usage of an item by segment of its total, server and day of the account's zone, or by slot of one day. Hours in which
-- a server was active are counted from the period's start and belong to who had it when the hour began.
WITH item AS (
    SELECT i.*, b.time_zone FROM billed_item i JOIN billing_account b USING (account_id)
    WHERE i.billed_item_id = %(billed_item_id)s
), server AS (
    SELECT DISTINCT a.subject FROM assignment a JOIN item USING (subscription_id)
    WHERE a.valid_from < item.period_end AND a.valid_to > item.period_start AND item.subject IN ('', a.subject)
        AND (%(server)s::text IS NULL OR a.subject = %(server)s)
), edge AS (
    SELECT server.subject, item.period_start AS at FROM server, item
    UNION SELECT a.subject, a.valid_from FROM assignment a JOIN server USING (subject), item
    WHERE a.valid_from > item.period_start AND a.valid_from < item.period_end
    UNION SELECT a.subject, a.valid_to FROM assignment a JOIN server USING (subject), item
    WHERE a.valid_to > item.period_start AND a.valid_to < item.period_end
), span AS (
    SELECT subject, at AS span_from,
        coalesce(lead(at) OVER (PARTITION BY subject ORDER BY at), (SELECT period_end FROM item)) AS span_to
    FROM edge
), held AS (
    SELECT span.* FROM span JOIN LATERAL (
        SELECT a.subscription_id FROM assignment a
        WHERE a.subject = span.subject AND a.valid_from <= span.span_from AND a.valid_to > span.span_from
        ORDER BY a.known_number DESC LIMIT 1) owner ON true
    JOIN item ON item.subscription_id = owner.subscription_id
), segment AS (
    SELECT s.place - 1 AS segment, (s.value ->> 'from')::timestamptz AS time_from, (s.value ->> 'to')::timestamptz AS time_to, (
            SELECT p.meter FROM price_binding p
            WHERE p.subscription_id = item.subscription_id AND p.item = item.item
                AND p.price_version_id = (s.value ->> 'price_version_id')::integer
            ORDER BY p.known_number DESC LIMIT 1) AS meter
    FROM item JOIN usage_total t USING (billed_item_id), jsonb_array_elements(t.segments) WITH ORDINALITY AS s (value, place)
), slot AS (
    SELECT segment.segment, segment.time_from, segment.time_to, r.subject, m.meter, m.unit, m.event_type,
        coalesce(m.gap_seconds_max, 0) AS gap_seconds, m.slot_seconds, m.aggregation = 'active_hours' AS is_hours, u.slot_start, u.quantity,
        CASE WHEN m.aggregation = 'active_hours' THEN date_bin('1 hour', u.slot_start, item.period_start)
            ELSE u.slot_start END AS at, item.time_zone
    FROM item, segment
    JOIN meter_version m USING (meter)
    JOIN series r USING (meter_version_id)
    JOIN server USING (subject)
    JOIN usage_bucket u USING (series_id)
    WHERE u.slot_start >= item.period_start AND u.slot_start < item.period_end
)
SELECT slot.segment, slot.subject AS server, slot.meter, slot.unit, slot.event_type, slot.gap_seconds,
    slot.slot_seconds, slot.time_zone,
    CASE WHEN %(day)s::date IS NULL THEN date_trunc('day', slot.at, slot.time_zone) ELSE slot.slot_start END AS at,
    CASE WHEN bool_or(slot.is_hours) THEN count(DISTINCT slot.at)::numeric ELSE trim_scale(sum(slot.quantity)) END AS quantity
FROM slot JOIN held ON held.subject = slot.subject AND slot.at >= held.span_from AND slot.at < held.span_to
WHERE slot.at >= slot.time_from AND slot.at < slot.time_to
    AND (%(day)s::date IS NULL OR date_trunc('day', slot.at, slot.time_zone) = %(day)s::date::timestamp AT TIME ZONE slot.time_zone)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
ORDER BY slot.segment, slot.subject COLLATE "C", slot.meter COLLATE "C", 9

-- name: speakers
-- Sources that send a type of event about a server.
SELECT source FROM source_subject WHERE subject = %(server)s AND event_type = %(event_type)s ORDER BY source COLLATE "C"

-- name: sources_of_epoch
-- Who counts under an epoch, and in which partition.
SELECT source FROM identity_epoch WHERE epoch = %(epoch)s
UNION SELECT source FROM decision WHERE event_id = %(event_id)s AND source IS NOT NULL
ORDER BY 1

-- name: log_partitions
SELECT partition_count FROM log WHERE topic = %(topic)s

-- name: decisions_at
-- What was decided about events at some positions; nothing where they were counted.
SELECT h.number, d.log_offset, d.index_in_message, d.outcome, d.reason
FROM unnest(%(numbers)s::integer[], %(offsets)s::bigint[], %(indexes)s::integer[]) AS at (number, log_offset, index_in_message)
JOIN log_history h ON h.topic = %(topic)s AND h.number = at.number
JOIN decision d ON d.topic = h.name AND d.partition = %(partition)s AND d.log_offset = at.log_offset
    AND d.index_in_message = at.index_in_message

-- name: fed_buckets
-- The slots an event's time lies in, by the meters that read it, and what they hold now.
SELECT m.meter, m.version, m.unit, m.aggregation, slot.at AS slot_start, b.quantity
FROM meter_version m
CROSS JOIN LATERAL (SELECT date_bin(make_interval(secs => m.slot_seconds), %(at)s, '1970-01-01Z') AS at) AS slot
LEFT JOIN series s ON s.meter_version_id = m.meter_version_id AND s.subject = %(server)s AND s.source IN ('', %(source)s)
LEFT JOIN usage_bucket b ON b.series_id = s.series_id AND b.slot_start = slot.at
WHERE m.event_type = %(event_type)s AND m.effective_from <= %(at)s
    AND NOT EXISTS (SELECT FROM meter_version later WHERE later.meter = m.meter AND later.effective_from <= %(at)s
        AND (later.effective_from, later.version) > (m.effective_from, m.version))
ORDER BY m.meter COLLATE "C"

-- name: fed_items
-- The items that charged a meter of a server at an instant, with total, booking, and the lines that took it.
SELECT i.billed_item_id, i.account_id, i.subscription_id, i.item, nullif(i.subject, '') AS server, i.period_start,
    i.period_end, bound.meter, t.generation, t.revision, t.computed_at, c.revision AS booked_revision, c.outcome
FROM (SELECT a.subscription_id FROM assignment a
    WHERE a.subject = %(server)s AND a.valid_from <= %(at)s AND a.valid_to > %(at)s
    ORDER BY a.known_number DESC LIMIT 1) AS owner
JOIN billed_item i USING (subscription_id)
JOIN LATERAL (SELECT p.meter FROM price_binding p
    WHERE p.subscription_id = i.subscription_id AND p.item = i.item AND p.effective_from <= %(at)s
    ORDER BY p.effective_from DESC, p.known_number DESC LIMIT 1) AS bound ON true
LEFT JOIN usage_total t USING (billed_item_id)
LEFT JOIN booked_charge c USING (billed_item_id)
WHERE i.period_start <= %(at)s AND i.period_end > %(at)s AND i.subject IN ('', %(server)s)
    AND bound.meter = ANY (%(meters)s::text[])
ORDER BY i.item COLLATE "C"

-- name: item_postings
-- Everything booked for an item, and what took it.
SELECT t.ledger_transaction_id, t.key, t.booked_at, t.revision, e.amount, e.currency, n.invoice_id,
    coalesce(n.number, n.invoice_id) AS invoice, taken.line_number
FROM ledger_transaction t
JOIN ledger_entry e USING (ledger_transaction_id)
JOIN ledger_account a USING (ledger_account_id)
LEFT JOIN invoice_entry taken USING (ledger_entry_id)
LEFT JOIN invoice n ON n.invoice_id = taken.invoice_id
WHERE t.billed_item_id = %(billed_item_id)s AND a.kind = 'unbilled'
ORDER BY t.booked_at, e.ledger_entry_id

-- name: line_of
SELECT description, quantity, amount_exact, amount_minor FROM invoice_line
WHERE invoice_id = %(invoice_id)s AND line_number = %(line)s
