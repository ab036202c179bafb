"""`rackmeter ui`: pages to look at, on this machine."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.environment import NOT_SET, settings_for
from pipeline.cli.options import examples
from pipeline.cli.output import say
from pipeline.domain.errors import ConfigurationFault

if TYPE_CHECKING:
    from pipeline.web.ui.look import Look

app = typer.Typer()


@app.command(
    epilog=examples(
        "rackmeter ui --folder .rackmeter/demo/run-0001",
        "rackmeter ui --folder .rackmeter/up --port 8080",
        "DATABASE_URL=postgresql://... rackmeter ui",
    )
)
def ui(
    folder: Annotated[
        Path | None, typer.Option(help="Of `rackmeter up` or of a demo's run; default: the database of DATABASE_URL.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")] = 0,
) -> None:
    """
    Show flow, usage, invoices, quarantine, ledger and proof as web pages until Ctrl-C.

    Read only, on 127.0.0.1 only. A folder that nobody runs in has its database started meanwhile; its address is
    printed. The events of a slot are read from the folder's archive, or from RACKMETER_ARCHIVE_DIR.
    """
    from pipeline.local.processes import stopping_on_signals
    from pipeline.web.ui.app import create_app
    from pipeline.web.ui.server import LOOPBACK, listen, serve

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stopping_on_signals())
        try:
            listening = stack.enter_context(contextlib.closing(listen(port)))
        except OSError as error:
            raise ConfigurationFault(f"port {port} cannot be had: {error.strerror}. Take another --port.") from None
        look = stack.enter_context(_looked_at(folder))
        typer.echo(f"look at http://{LOOPBACK}:{listening.getsockname()[1]}/")
        say("Ctrl-C ends it")
        serve(create_app(look), listening, stop)
    say("stopped; nothing is left running")


@contextlib.contextmanager
def _looked_at(folder: Path | None) -> Iterator["Look"]:
    """Give what is looked at: the folder's database where it has one, else that of the environment."""
    from pipeline.local.looking import folder_database, has_database, metrics_urls
    from pipeline.web.ui.look import Look

    if folder is None:
        settings = settings_for("database_url")
        archive_dir = None if str(settings.archive_dir) == NOT_SET else settings.archive_dir
        yield Look("the database of DATABASE_URL", settings.database_url, archive_dir)
        return
    run = folder.resolve()
    with contextlib.ExitStack() as stack:
        # `up` keeps everything but the database in its folder where it was given one.
        is_elsewhere = not has_database(run) and (run / "logs").is_dir()
        url = (
            settings_for("database_url").database_url
            if is_elsewhere
            else stack.enter_context(folder_database(run, say))
        )
        yield Look(run.name, url, run / "archive", lambda: metrics_urls(run))
