"""What a command needs of the environment: commands that only read the database ask for no broker and no folders."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.runtime.settings import Settings, variable_name

if TYPE_CHECKING:
    from pipeline.runtime.postgres import Connection

#: Stands for a required setting that is missing and that the command can do without.
NOT_SET = "not-set"
REQUIRED = ("kafka_bootstrap_servers", "database_url", "archive_dir", "documents_dir", "state_dir")

_URL_PASSWORD = re.compile(r"(://[^:@/]*:).*@")
_WORD_PASSWORD = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]*)", re.IGNORECASE)


def settings_for(*needed: str) -> Settings:
    """
    Read the settings.

    Args:
        needed: Names of the required fields the command uses; none for all. The others may be missing.

    Raises:
        ConfigurationFault: Names every needed variable that is missing and every malformed one.
    """
    environment = dict(os.environ)
    for name in REQUIRED if needed else ():
        if name not in needed and not environment.get(variable_name(name), "").strip():
            environment[variable_name(name)] = NOT_SET
    return Settings.from_environment(environment)


@contextmanager
def reading(settings: Settings) -> Iterator["Connection"]:
    """Open the database for a command; a missing table or a lost connection becomes an error that says what to do."""
    import psycopg

    from pipeline.bootstrap import database
    from pipeline.runtime.postgres import is_transient

    with database(settings, "rackmeter-cli") as connection:
        try:
            yield connection
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise ConfigurationFault(
                f"the database is not at this program's schema: {error.diag.message_primary}. Run `rackmeter migrate`.",
                "not_migrated",
            ) from error
        except psycopg.Error as error:
            if is_transient(error):
                raise TransientFault(f"the database stopped answering: {str(error).strip()}. Try again.") from error
            raise


def described() -> list[dict[str, str]]:
    """Every setting with its variable, value (passwords masked) and source: environment, default or missing."""
    rows = []
    for field in fields(Settings):
        variable = variable_name(field.name)
        text = os.environ.get(variable, "").strip()
        default = "" if field.default is MISSING else str(field.default)
        source = "environment" if text else "missing" if field.default is MISSING else "default"
        rows.append({"setting": variable, "value": masked(text) or default, "source": source})
    return rows


def masked(text: str) -> str:
    """The text of a URL or libpq setting without its passwords."""
    return _WORD_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))
