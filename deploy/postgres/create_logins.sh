#!/bin/sh
# Runs once, when the database's volume is made: the login of the stages, which acts as rackmeter_app and owns nothing.
set -eu
: "${RACKMETER_STAGES_PASSWORD:?is not set}"
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set password="$RACKMETER_STAGES_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE rackmeter_app NOLOGIN;
CREATE ROLE rackmeter_stages LOGIN PASSWORD :'password' IN ROLE rackmeter_app;
SQL
