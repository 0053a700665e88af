"""`peerloan serve`: serve the page and the API."""

from __future__ import annotations

import threading
import time
import urllib.request
import webbrowser

import click

from peerloan.cli.console import note
from peerloan.cli.ledger_options import ledger_database
from peerloan.database import LedgerUnavailable
from peerloan.database.errors import LostSeal
from peerloan.ledger.seal_ownership import open_seal
from peerloan.settings import read_settings
from peerloan.web.auth.loopback import is_loopback
from peerloan.web.auth.tokens import Tokens, TokensError
from peerloan.web.server.bind_address import find_address
from peerloan.web.server.granian import serve as run_server


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address or name of this machine to listen on. 127.0.0.1 accepts local connections only.",
)
@click.option(
    "--port",
    default=5000,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port to listen on.",
)
@click.option(
    "--workers",
    default=2,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Number of worker processes.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
def serve(host: str, port: int, workers: int, open_page: bool) -> None:
    """Serve the page and the API.

    A newly promoted version serves within two seconds, without a restart.
    """
    settings = read_settings()
    numeric = find_address(host, port, "peerloan serve")  # fails before anything is printed
    database = ledger_database()
    try:
        database.prepare()
        database.expect_writable()
        open_seal(settings.seal_folder, database)
        ledger = str(database)
    except (LedgerUnavailable, LostSeal) as error:  # it may become available later
        ledger = f"{database} (unavailable: {error})"
    address = f"http://{f'[{numeric}]' if ':' in numeric else numeric}:{port}/"
    name = "" if numeric == host else f" ({host})"
    note(f"PeerLoan Risk on {address}{name}; stop with Ctrl-C")
    callers = _who_may_call(Tokens(settings.tokens, settings.tokens_marker), numeric)
    note(f"store {settings.store}, tokens {settings.tokens}{callers}")
    note(f"ledger {ledger}, seal {settings.seal_folder}")
    if open_page:
        threading.Thread(target=_open, args=(address,), daemon=True).start()
    run_server(numeric, port, workers)


def _who_may_call(tokens: Tokens, host: str) -> str:
    try:
        if tokens.state() is not None:
            return ""
    except (TokensError, OSError) as error:
        return f" ({error})"
    if is_loopback(host):
        return " (none: open to this machine; `peerloan token new NAME` closes it)"
    return " (none: only health checks are answered; make one with `peerloan token new NAME`)"


def _open(address: str) -> None:
    for _ in range(50):
        try:
            urllib.request.urlopen(address + "healthz", timeout=1).close()  # noqa: S310  our own
        except OSError:
            time.sleep(0.2)
        else:
            webbrowser.open(address)
            return
