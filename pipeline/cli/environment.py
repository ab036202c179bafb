"""What a command needs of the environment: commands that only read the database ask for no broker and no folders."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.runtime.settings import NOT_SET, OTHER_VARIABLES, Settings, foreign_variables, variable_name

if TYPE_CHECKING:
    from pipeline.runtime.postgres import Connection

__all__ = ["NOT_SET", "REQUIRED", "check_environment", "described", "masked", "reading", "settings_for"]

REQUIRED = ("kafka_bootstrap_servers", "database_url", "archive_dir", "documents_dir", "journal_dir", "state_dir")

# The trigger of 0011 that refuses a change of what retention has dropped; its message says so in full.
BEHIND_RETENTION = "dirty_mark_retention_ck"

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
    return Settings.from_environment(not_needed=[name for name in REQUIRED if needed and name not in needed])


def check_environment() -> None:
    """
    Check every setting, and that every RACKMETER_ variable means something.

    Raises:
        ConfigurationFault: Names every problem, one a line.
    """
    problems = foreign_variables()
    try:
        Settings.from_environment()
    except ConfigurationFault as error:
        problems = [*error.detail.splitlines(), *problems]
    if problems:
        raise ConfigurationFault("\n".join(problems))


@contextmanager
def reading(settings: Settings, *, as_owner: bool = False) -> Iterator["Connection"]:
    """
    Open the database for a command; a missing table or a lost connection becomes an error that says what to do.

    Args:
        settings: Name the database.
        as_owner: Keep the login's own rights, for what only the database's owner may do.
    """
    import psycopg

    from pipeline.bootstrap import database, owner_database
    from pipeline.runtime.postgres import constraint_of, is_transient

    with owner_database(settings) if as_owner else database(settings, "rackmeter-cli") as connection:
        try:
            yield connection
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise ConfigurationFault(
                f"the database is not at this program's schema: {error.diag.message_primary}. Run `rackmeter migrate`.",
                "not_migrated",
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationFault(
                f"the login in DATABASE_URL may not: {error.diag.message_primary}", "not_permitted"
            ) from error
        except psycopg.errors.CheckViolation as error:
            if constraint_of(error) != BEHIND_RETENTION:
                raise
            raise ConfigurationFault(error.diag.message_primary or str(error), "behind_retention") from error
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
        default = "" if field.default in (MISSING, None) else str(field.default)
        source = "environment" if text else "missing" if field.default is MISSING else "default"
        shown = "***" if text and field.name == "stripe_api_key" else masked(text)
        rows.append({"setting": variable, "value": shown or default, "source": source})
    for variable, choices in OTHER_VARIABLES.items():
        text = os.environ.get(variable, "").strip()
        if choices or text:
            rows.append({"setting": variable, "value": text, "source": "environment" if text else "default"})
    return rows


def masked(text: str) -> str:
    """The text of a URL or libpq setting without its passwords."""
    return _WORD_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))
