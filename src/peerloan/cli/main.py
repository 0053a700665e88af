"""The `peerloan` command. Exit codes: 0 success, 1 failure, 2 wrong use.

1 means that the data or the system do not allow the command, or that a check found something.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from peerloan import __version__
from peerloan.cli.console import CommandError, fail
from peerloan.errors import PeerLoanError
from peerloan.registry import some_call_hangs
from peerloan.settings import SETTINGS, SettingsError, settings_table

# Each command is in the module of its name, which is imported when the command is used: `serve`
# must run where the libraries for books and training are not installed.
_COMMANDS = (
    "sample",
    "define",
    "check",
    "explore",
    "train",
    "bootstrap",
    "score",
    "models",
    "serve",
    "token",
    "ledger",
    "replay",
    "outcomes",
    "monitor",
    "events",
    "demo",
)


class _LazyGroup(click.Group):
    """Imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in _COMMANDS:
            return None
        try:
            module = import_module(f"peerloan.cli.commands.{name}")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("peerloan"):
                raise
            return _unavailable_command(name, str(error.name))
        command: click.Command = getattr(module, name)
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the settings after the commands."""
        with formatter.section("Settings"):
            formatter.write_dl(
                [
                    (variable, f"{text} (default: {default})" if default else text)
                    for variable, _name, default, text in settings_table()
                ]
            )
        formatter.write_paragraph()
        names = ", ".join(setting.name for setting in SETTINGS)
        formatter.write_text(
            f"In the settings file they are {names}. The environment wins over the file."
        )


def _unavailable_command(name: str, library: str) -> click.Command:
    """Return a stand-in for a command whose libraries are not installed."""

    def fail_with_hint(**_: object) -> None:
        raise CommandError(f"`peerloan {name}` needs {library}: pip install 'peerloan[train]'")

    return click.Command(
        name,
        callback=fail_with_hint,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        help="(not installed here: pip install 'peerloan[train]')",
    )


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="peerloan")
def peerloan() -> None:
    """Predict which loan holders will be late with payments, and explain why."""


# Exit codes of commands that were ended by a signal, by the convention of shells.
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class _Terminated(BaseException):
    """The process received SIGTERM."""


def _terminate(_number: int, _frame: object) -> None:
    raise _Terminated


def _drop_output() -> None:
    """Discard buffered output; otherwise Python prints an error when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(args: list[str] | None = None) -> Any:
    """Run a command: `args`, or else the arguments of this process.

    Without `args` the process ends afterwards, even if a call to the store hangs or a library
    is still reading. See `_run` for exit codes.
    """
    try:
        return _run(args)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    # The traceback is freed by now, and with it every partly read book. The interpreter can't shut
    # down while a thread is inside a library: a thread that returns too late aborts the process.
    # With `args` the process belongs to the caller and must not be ended.
    if args is None and (some_call_hangs() or code in _STOPPED):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # its reader is gone
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _run(args: list[str] | None) -> Any:
    """Run a command. A user's mistake becomes one line and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal lacks
    # Treated like Ctrl-C, so that half-written files are removed. A server has its own handlers.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        peerloan.main(args, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except _Terminated:
        fail("stopped", 128 + signal.SIGTERM)
    except (click.Abort, KeyboardInterrupt):
        fail("stopped", 128 + signal.SIGINT)
    except BrokenPipeError:  # `peerloan … | head`
        _drop_output()
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("peerloan"):
            raise
        fail(f"this command needs {error.name}: pip install 'peerloan[train]'", 1)
    except SettingsError as error:
        fail(str(error), 2)
    except Exception as error:
        # PeerLoan's own exceptions are messages to the user. Others are bugs and get a traceback,
        if isinstance(error, PeerLoanError):
            fail(str(error), 1)
        # except errors of the system, such as a missing permission or a full disk.
        if not isinstance(error, OSError):
            raise
        if error.filename is None:
            _drop_output()
        fail(f"{error.filename or 'the output'}: {error.strerror}", 1)
