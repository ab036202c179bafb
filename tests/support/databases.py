"""Copies of a database, so that each run or each tampering has one of its own."""

import contextlib
import itertools
import os
from collections.abc import Iterator

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

_NUMBERS = itertools.count(1)


@contextlib.contextmanager
def copied_database(server_url: str, template: str) -> Iterator[tuple[str, str]]:
    """Give (name, URL) of a copy of a database that nobody is connected to; it is dropped afterwards."""
    name = f"acceptance_{os.getpid()}_{next(_NUMBERS)}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield name, make_conninfo(server_url, dbname=name)
    finally:
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
