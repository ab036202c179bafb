"""`rackmeter catalogue`: what is sold and to whom, from a YAML file into the database."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Format, numbers, say, show, texts

app = typer.Typer(
    no_args_is_help=True,
    help="Meters, prices, plans, accounts: check and apply the catalogue.",
    epilog=examples("rackmeter catalogue check catalogue.yaml"),
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The catalogue, YAML.")]


@app.command(epilog=examples("rackmeter catalogue check catalogue.yaml"))
def check(file: FileArgument, form: FormatOption = Format.TABLE) -> None:
    """Check a catalogue: prints how much is in it, or every problem with file, line and field. Needs no service."""
    from pipeline.catalogue.document import read_catalogue

    catalogue = read_catalogue(file)
    sections = ("sellers", "meters", "prices", "plans", "accounts", "subscriptions")
    rows = [{"section": name, "entries": len(getattr(catalogue, name))} for name in sections]
    show((*texts("section"), *numbers("entries")), rows, form)
    say(f"{file} is in order")


@app.command(epilog=examples("rackmeter catalogue apply catalogue.yaml"))
def apply(file: FileArgument, form: FormatOption = Format.TABLE) -> None:
    """Put a catalogue into the database: all of it or nothing. Applying the same one again changes nothing."""
    from pipeline.catalogue.apply import apply as apply_catalogue
    from pipeline.catalogue.document import read_catalogue

    catalogue = read_catalogue(file)
    with reading(settings_for("database_url")) as connection:
        applied = apply_catalogue(connection, catalogue)
    show(texts("change"), [{"change": change} for change in applied.changes], form)
    if applied.is_changed:
        say(f"applied as known number {applied.known_number}")
    else:
        say(f"nothing is new since known number {applied.known_number}")
