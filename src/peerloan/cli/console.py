"""Shared by all commands: options, printing, failing, and progress bars."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click

from peerloan.errors import PeerLoanError
from peerloan.loan import Definition, default_definition, read_definition
from peerloan.model.policy import PLAIN_AIMS, USUAL_AIMS
from peerloan.registry import Bundle, Store
from peerloan.settings import read_settings

BOOK = click.argument("book", metavar="BOOK")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
STRICT_DOUBTS = click.option(
    "--strict-doubts",
    is_flag=True,
    help="Refuse a book with a doubt (a value that looks wrong) about 1 % of its rows or more. "
    "Nothing is written.",
)
OUT = click.Path(path_type=Path)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an existing file.")
SPREADSHEET_SAFE = click.option(
    "--spreadsheet-safe",
    is_flag=True,
    help="In CSV, put ' before text that a spreadsheet would run as a formula.",
)
DEFINITION = click.option(
    "--definition",
    type=click.Path(path_type=Path),
    help="Loan definition to use (TOML). Default: the champion's, else PeerLoan's own.",
)

_AIMS = "balanced, cost=RATIO, capacity=SHARE, recall=SHARE or f2"


class _Aim(click.ParamType[tuple[str, float]]):
    """Parses the aim of a threshold: NAME=VALUE, or NAME of an aim without a value."""

    name = "aim"

    def convert(self, value: object, param: object, ctx: object) -> tuple[str, float]:  # noqa: ARG002
        if isinstance(value, tuple):
            return value
        name, _, number = str(value).partition("=")
        if name in PLAIN_AIMS and not number:
            return name, 0.0
        try:
            if name not in USUAL_AIMS or name in PLAIN_AIMS:
                raise ValueError
            return name, float(number)
        except ValueError:
            raise click.BadParameter(f"expected {_AIMS}, given {value!r}") from None


AIM = click.option(
    "--aim",
    type=_Aim(),
    metavar="NAME[=VALUE]",
    default="balanced",
    show_default=True,
    help=f"Aim of the threshold: {_AIMS}.",
)


class CommandError(PeerLoanError):
    """A command failed because of its data: `main` prints the message and exits with 1."""


def open_store() -> Store:
    """Open the store that the settings name."""
    return Store(read_settings().store)


def load_bundle(model: str | None) -> Bundle:
    """Load the named version, or else the champion. Raises CommandError if there is none."""
    store = open_store()
    version = model or store.state().champion
    if version is None:
        raise CommandError(
            f"{store.root}: no champion; promote a version, or name one with --model"
        )
    return store.load(version)


def choose_definition(path: Path | None) -> tuple[Definition, str]:
    """Return the loan definition to use, and where it comes from, in words."""
    if path is not None:
        return read_definition(path), str(path)
    store = open_store()
    champion = store.state().champion
    if champion is not None:
        return store.definition(champion), f"the champion's, {champion}"
    return default_definition(), "PeerLoan's own"


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people."""
    from rich.console import Console  # not at the top: a service does not need rich
    from rich.table import Table

    # A pipe has no width to fit into. Markup is off, since reasons and file names may hold brackets
    # and colons.
    width = None if sys.stdout.isatty() else 1000
    out = Console(highlight=False, width=width, markup=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def note(text: str) -> None:
    """Print a sentence on standard error, so that standard output holds the result alone."""
    # Not click.echo: rich prints the output of `print` above a progress bar.
    print(text, file=sys.stderr, flush=True)  # noqa: T201


class _Lines(Protocol):
    def lines(self) -> list[str]: ...


def note_lines(report: _Lines) -> None:
    """Print the lines of a report, such as a book's doubts, on standard error."""
    for line in report.lines():
        note(line)


def expect_many_records() -> None:
    """Run the garbage collector less often.

    For commands that make millions of small objects without cycles: by default Python searches
    for cycles after every few hundred objects, which takes a third of the time.
    """
    gc.set_threshold(100_000)


class Show(Protocol):
    """Shows a step's progress: its name, the share done (0 to 1), and a text such as a rate."""

    def __call__(self, what: str, done: float, more: str = "") -> None: ...


@contextmanager
def progress() -> Iterator[Show]:
    """Show progress: bars on a terminal, elsewhere a line for each finished step."""
    if not sys.stderr.isatty():
        finished: set[str] = set()

        def print_finished(what: str, done: float, more: str = "") -> None:  # noqa: ARG001
            if done >= 1 and what not in finished:
                finished.add(what)
                note(what)

        yield print_finished
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[more]}", markup=False),
        console=err,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: float, more: str = "") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=1.0, more="")
            bars.update(tasks[what], completed=done, more=more)

        yield show


def fail(sentence: str, code: int) -> None:
    """Print an error message and exit with a code."""
    note(f"peerloan: {sentence}")
    sys.exit(code)
