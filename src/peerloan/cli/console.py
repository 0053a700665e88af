"""What the commands share: how they print, fail, and show that long work goes on."""

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
from peerloan.registry import Bundle, Store
from peerloan.settings import read_settings

BOOK = click.argument("book", metavar="BOOK")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
STRICT_DOUBTS = click.option(
    "--strict-doubts",
    is_flag=True,
    help="Refuse a book with a doubt about 1 % of its rows or more: nothing is written.",
)
OUT = click.Path(path_type=Path)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an existing file.")
SPREADSHEET_SAFE = click.option(
    "--spreadsheet-safe",
    is_flag=True,
    help="In CSV, put ' before texts that a spreadsheet would take for a formula.",
)
DEFINITION = click.option(
    "--definition",
    type=click.Path(path_type=Path),
    help="A loan definition (TOML). Default: the champion's, else PeerLoan's own.",
)


class _Aim(click.ParamType[tuple[str, float]]):
    """A threshold's aim, as NAME=VALUE."""

    name = "aim"

    def convert(self, value: object, param: object, ctx: object) -> tuple[str, float]:  # noqa: ARG002
        if isinstance(value, tuple):
            return value
        name, _, number = str(value).partition("=")
        if name == "f2" and not number:
            return name, 0.0
        try:
            if name not in ("cost", "capacity", "recall"):
                raise ValueError
            return name, float(number)
        except ValueError:
            raise click.BadParameter(
                f"expected cost=RATIO, capacity=SHARE, recall=SHARE or f2, given {value!r}"
            ) from None


AIM = click.option(
    "--aim",
    type=_Aim(),
    metavar="NAME=VALUE",
    default="cost=20",
    show_default=True,
    help="What the threshold is for: cost=RATIO, capacity=SHARE, recall=SHARE or f2.",
)


class No(PeerLoanError):
    """The answer is no: print the sentence and exit with 1."""


def store() -> Store:
    """The store that the settings name."""
    return Store(read_settings().store)


def bundle_of(model: str | None) -> Bundle:
    """The version that is named, or else the champion; raises No if there is none."""
    here = store()
    version = model or here.state().champion
    if version is None:
        raise No(f"no champion in {here.root}; promote a version, or name one with --model")
    return here.load(version)


def definition_of(path: Path | None) -> tuple[Definition, str]:
    """The definition to work with, and where it comes from, in words."""
    if path is not None:
        return read_definition(path), str(path)
    here = store()
    champion = here.state().champion
    if champion is not None:
        return here.definition(champion), f"the champion's, {champion}"
    return default_definition(), "PeerLoan's own"


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people."""
    from rich.console import Console  # here and below: a service draws nothing
    from rich.table import Table

    # A pipe has no width to fit into. Nothing is markup: a reason or a file's name may hold
    # brackets and colons.
    width = None if sys.stdout.isatty() else 1000
    out = Console(highlight=False, width=width, markup=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def note(text: str) -> None:
    """Print a sentence beside the result, so that a result can be piped."""
    # Not click's: while a bar is drawn, rich puts above it what is written here.
    print(text, file=sys.stderr, flush=True)  # noqa: T201


class _Lines(Protocol):
    def lines(self) -> list[str]: ...


def note_lines(about: _Lines) -> None:
    """Print what has to be known of a book, such as its doubts, beside the result."""
    for line in about.lines():
        note(line)


def expect_many_records() -> None:
    """For a command that makes millions of small objects, none in a cycle: Python would look for
    cycles after every few hundred of them, and take a third of the time.
    """
    gc.set_threshold(100_000)


class Show(Protocol):
    """Says of a step how much of it is done, 0 to 1, and a word more, such as its rate."""

    def __call__(self, what: str, done: float, more: str = "") -> None: ...


@contextmanager
def progress() -> Iterator[Show]:
    """Bars on a terminal, a line for each finished step elsewhere."""
    if not sys.stderr.isatty():
        told: set[str] = set()

        def tell(what: str, done: float, more: str = "") -> None:  # noqa: ARG001
            if done >= 1 and what not in told:
                told.add(what)
                note(what)

        yield tell
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
    """Print why not, and exit."""
    note(f"peerloan: {sentence}")
    sys.exit(code)
