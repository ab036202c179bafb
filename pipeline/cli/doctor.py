"""`rackmeter doctor`: what is wrong with this installation, and what to do."""

import typer

from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Format, say, show, texts

app = typer.Typer()


@app.command(epilog=examples("rackmeter doctor", "rackmeter doctor --format json"))
def doctor(form: FormatOption = Format.TABLE) -> None:
    """
    Check settings, folders, database, migrations, clock, broker, topics and logs; changes nothing.

    Each problem says what to do. Exit code 1: there is one.
    """
    from pipeline.cli.diagnosis import diagnose

    findings = diagnose()
    rows = [
        {
            "check": one.check,
            "result": "ok" if one.is_ok else "problem",
            "found": one.found,
            "what_to_do": one.what_to_do or None,
        }
        for one in findings
    ]
    show(texts("check", "result", "found", "what_to_do"), rows, form)
    problems = sum(not one.is_ok for one in findings)
    if problems:
        said = "1 problem" if problems == 1 else f"{problems} problems"
        say(f"{len(findings)} checks: {len(findings) - problems} ok, {said}; `what to do` says how to go on")
        raise typer.Exit(1)
    say(f"{len(findings)} checks: all ok")
