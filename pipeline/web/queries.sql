-- name: read_tokens
-- Those that may still be used, now or later.
SELECT token_id, secret_digest, scope, source_prefix, account_id, expires_at, revoked_at
FROM collector_token
WHERE revoked_at IS NULL AND expires_at > now()

-- name: note_use
-- To the hour: a token in use costs one write an hour, however many collectors there are.
UPDATE collector_token SET last_used_at = date_trunc('hour', now(), 'UTC')
WHERE token_id = ANY (%(token_ids)s)
    AND (last_used_at IS NULL OR last_used_at < date_trunc('hour', now(), 'UTC'))

-- name: insert_token
INSERT INTO collector_token (token_id, secret_digest, scope, source_prefix, account_id, note, expires_at)
VALUES (%(token_id)s, %(secret_digest)s, %(scope)s, %(source_prefix)s, %(account_id)s, %(note)s,
    coalesce(%(expires_at)s::timestamptz, 'infinity'))

-- name: insert_successor
-- May do what its predecessor may, for as long as that one was made for.
INSERT INTO collector_token (token_id, secret_digest, scope, source_prefix, account_id, note, replaces, expires_at)
SELECT %(token_id)s, %(secret_digest)s, scope, source_prefix, account_id, note, token_id,
    CASE WHEN expires_at = 'infinity' THEN expires_at ELSE now() + (expires_at - created_at) END
FROM collector_token
WHERE token_id = %(replaces)s AND revoked_at IS NULL AND expires_at > now()

-- name: end_predecessor
UPDATE collector_token SET expires_at = least(expires_at, now() + make_interval(secs => %(overlap_seconds)s))
WHERE token_id = %(token_id)s
RETURNING expires_at

-- name: revoke_token
UPDATE collector_token SET revoked_at = now() WHERE token_id = %(token_id)s AND revoked_at IS NULL

-- name: list_tokens
SELECT token_id, scope, source_prefix, account_id AS account, note, replaces, created_at, expires_at, revoked_at,
    last_used_at,
    CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'valid' END AS state
FROM collector_token
ORDER BY created_at, token_id

-- name: has_token
SELECT EXISTS (SELECT FROM collector_token WHERE token_id = %(token_id)s)

-- name: usage_windows
-- Usage of slots that begin in [from, to), by window and by what it is grouped by; the meter always is. An hour is
-- active once, however many of its slots are; over all of the time, hours are counted from its beginning.
WITH wanted AS (
    SELECT s.series_id, s.subject, m.meter, m.unit, m.aggregation
    FROM series s JOIN meter_version m USING (meter_version_id)
    WHERE (%(subject)s::text IS NULL OR s.subject = %(subject)s)
        AND (%(meter)s::text IS NULL OR m.meter = %(meter)s)
        AND (%(account)s::text IS NULL OR s.subject IN (
            SELECT a.subject FROM assignment a JOIN subscription_span USING (subscription_id)
            WHERE account_id = %(account)s))
),
edge AS (
    SELECT DISTINCT subject, '-infinity'::timestamptz AS at FROM wanted
    UNION SELECT subject, valid_from FROM assignment WHERE subject IN (SELECT subject FROM wanted)
    UNION SELECT subject, valid_to FROM assignment
        WHERE subject IN (SELECT subject FROM wanted) AND valid_to <> 'infinity'
),
span AS (
    SELECT subject, at AS span_from,
        coalesce(lead(at) OVER (PARTITION BY subject ORDER BY at), 'infinity') AS span_to
    FROM edge
),
held AS (
    SELECT span.subject, span.span_from, span.span_to, s.account_id, s.starts_at, s.ends_at,
        coalesce(%(zone_name)s::text, account.time_zone, 'UTC') AS zone_name
    FROM span
    LEFT JOIN LATERAL (
        SELECT a.subscription_id FROM assignment a
        WHERE a.subject = span.subject AND a.valid_from <= span.span_from AND a.valid_to > span.span_from
        ORDER BY a.known_number DESC LIMIT 1) owner ON true
    LEFT JOIN subscription_span s USING (subscription_id)
    LEFT JOIN billing_account account USING (account_id)
    WHERE span.span_from < %(to)s AND span.span_to > %(from)s
),
slot AS (
    SELECT w.subject, w.meter, w.unit, w.aggregation, b.slot_start, b.quantity, held.zone_name,
        CASE WHEN %(window)s = 'total' THEN %(from)s
            ELSE date_trunc(%(window)s::text, b.slot_start, held.zone_name) END AS window_start,
        CASE WHEN b.slot_start >= held.starts_at AND b.slot_start < coalesce(held.ends_at, 'infinity')
            THEN held.account_id END AS account_id
    FROM wanted w
    JOIN held USING (subject)
    JOIN usage_bucket b ON b.series_id = w.series_id
        AND b.slot_start >= greatest(held.span_from, %(from)s) AND b.slot_start < least(held.span_to, %(to)s)
),
of_one AS (
    SELECT account_id, subject, meter, unit, zone_name, window_start,
        CASE WHEN aggregation = 'active_hours'
            THEN count(DISTINCT date_bin('1 hour', slot_start, window_start)) FILTER (WHERE quantity > 0)
            ELSE sum(quantity) END AS quantity
    FROM slot
    WHERE %(account)s::text IS NULL OR account_id = %(account)s
    GROUP BY account_id, subject, meter, unit, zone_name, window_start, aggregation
),
grouped AS (
    SELECT CASE WHEN %(by_account)s THEN account_id END AS account, CASE WHEN %(by_subject)s THEN subject END AS subject,
        meter, unit, CASE WHEN %(window)s <> 'total' THEN zone_name END AS zone_name, window_start, quantity
    FROM of_one
)
SELECT account, subject, meter, window_start, coalesce(zone_name, %(zone_name)s, 'UTC') AS zone_name,
    sum(quantity) AS quantity, unit
FROM grouped
GROUP BY account, subject, meter, window_start, grouped.zone_name, unit
ORDER BY account COLLATE "C" NULLS LAST, subject COLLATE "C", meter COLLATE "C", window_start, unit
LIMIT %(limit)s
