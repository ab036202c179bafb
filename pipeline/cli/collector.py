"""`rackmeter collector`: usage events over HTTP, and the tokens of those who send and ask."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples, moment_of
from pipeline.cli.output import Format, say, show, show_record, texts

app = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "rackmeter collector",
        "RACKMETER_COLLECTOR_PORT=9000 rackmeter collector",
        "rackmeter collector token create --source-prefix rack-1/",
    ),
)
tokens = typer.Typer(
    help="Tokens: make, list, rotate, revoke. The login in DATABASE_URL must own the database.",
    epilog=examples("rackmeter collector token list"),
    no_args_is_help=True,
)
app.add_typer(tokens, name="token")

_NEW = texts("token_id", "token")
_TOKEN = texts(
    "token_id", "scope", "source_prefix", "account", "state", "note", "created_at", "expires_at", "revoked_at",
    "last_used_at", "replaces",
)  # fmt: skip
TokenArgument = Annotated[str, typer.Argument(help="The token's id, as `token list` shows it.")]


@app.callback()
def collector(context: typer.Context) -> None:
    """
    Take usage events over HTTP and answer what was used; make tokens for both.

    Without a command it serves until SIGTERM or Ctrl-C: POST /v1/events, GET /v1/usage, GET /healthz. Requests in
    flight are answered before it ends. Settings are the RACKMETER_COLLECTOR_ ones of `check-config`; exit codes are
    those of `rackmeter run`.
    """
    from pipeline.bootstrap import run_collector

    if context.invoked_subcommand is None:
        raise typer.Exit(run_collector(settings_for("kafka_bootstrap_servers", "database_url")))


@tokens.command(
    epilog=examples(
        "rackmeter collector token create --source-prefix rack-1/ --expires 2027-01-01",
        "rackmeter collector token create --read --account acme",
    )
)
def create(
    source_prefix: Annotated[
        str, typer.Option("--source-prefix", help="Whose events it may send: rack-1 covers rack-1/a, not rack-10.")
    ] = "",
    read: Annotated[bool, typer.Option("--read", help="For reading usage instead of sending it.")] = False,
    account: Annotated[
        str | None, typer.Option(help="Of a --read token: whose usage. Without it: everybody's.")
    ] = None,
    expires: Annotated[str, typer.Option(help="A date (midnight UTC) or a time with zone. Without it: never.")] = "",
    note: Annotated[str, typer.Option(help="Who has it, for people.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Make a token and print it. It is shown this once: only its digest is kept."""
    from pipeline.web import store
    from pipeline.web.tokens import make_token

    if read == bool(source_prefix) or (account is not None and not read):
        raise typer.BadParameter("give --source-prefix, or --read with or without --account")
    new = make_token()
    with reading(settings_for("database_url"), as_owner=True) as connection:
        store.add_token(
            connection,
            new,
            "read" if read else "ingest",
            source_prefix=source_prefix or None,
            account_id=account,
            expires_at=moment_of(expires, "UTC") if expires else None,
            note=note,
        )
    show_record(_NEW, {"token_id": new.token_id, "token": new.text}, form)
    say("keep it now: it is not shown again")


@tokens.command("list", epilog=examples("rackmeter collector token list --format json"))
def list_tokens(form: FormatOption = Format.TABLE) -> None:
    """Every token ever made, without its secret; `last_used_at` is to the hour."""
    from pipeline.web import store

    with reading(settings_for("database_url"), as_owner=True) as connection:
        show(_TOKEN, store.list_tokens(connection), form)


@tokens.command(epilog=examples("rackmeter collector token rotate 5f0c2e9a1b7d4c33 --overlap-hours 48"))
def rotate(
    token: TokenArgument,
    overlap_hours: Annotated[int, typer.Option(min=0, max=8760, help="How long the old one goes on.")] = 24,
    form: FormatOption = Format.TABLE,
) -> None:
    """Make a successor that may do the same, and print it; the old token ends after the overlap."""
    from pipeline.web import store
    from pipeline.web.tokens import make_token

    new = make_token()
    with reading(settings_for("database_url"), as_owner=True) as connection:
        until = store.rotate_token(connection, token, new, int(timedelta(hours=overlap_hours).total_seconds()))
    show_record(_NEW, {"token_id": new.token_id, "token": new.text}, form)
    ends = "is over" if until <= datetime.now(UTC) else f"goes on until {until.isoformat()}"
    say(f"keep it now: it is not shown again; {token} {ends}")


@tokens.command(epilog=examples("rackmeter collector token revoke 5f0c2e9a1b7d4c33"))
def revoke(token: TokenArgument, form: FormatOption = Format.TABLE) -> None:
    """End a token; collectors know it within seconds."""
    from pipeline.web import store

    with reading(settings_for("database_url"), as_owner=True) as connection:
        changed = store.revoke_token(connection, token)
        rows = [row for row in store.list_tokens(connection) if row["token_id"] == token]
    show(_TOKEN, rows, form)
    say("revoked" if changed else "it was revoked before")
