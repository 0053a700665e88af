"""The demonstration: sample, train, promote, serve."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import click

from peerloan import private_files
from peerloan.cli.console import No, note
from peerloan.loan import default_definition
from peerloan.registry import RegistryError, Store
from peerloan.settings import CONFIG, PREFIX
from peerloan.web.auth.tokens import Tokens
from peerloan.web.server.bind_address import find_address
from peerloan.web.server.limits import GRACE_SECONDS

_READY_SECONDS = 30.0
# Longer than the server gives its workers.
_STOP_SECONDS = GRACE_SECONDS + 5


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Where the sample, the store and the server's log are kept.",
)
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--stop", is_flag=True, help="Stop the demonstration's server, and do no more.")
def demo(folder: Path, port: int, stop: bool) -> None:
    """Write a sample book, train two scorecards on it, promote the chosen one, and serve it.

    A folder that has a champion is served as it is. The server goes on in the background.
    """
    pid_file = folder / "server.pid"
    if stop:
        note("stopped" if _stop_server(pid_file) else "no server of the demonstration is running")
        return
    store = Store(folder / "store")
    best = _champion(store, folder)
    if port != _port_served(pid_file):
        find_address("127.0.0.1", port, "peerloan demo")  # before what runs is stopped
    if _stop_server(pid_file):
        note("the running server is restarted")
    find_address("127.0.0.1", port, "peerloan demo")
    folder.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
    if (folder / "server.log").exists():  # it is the demonstration's, of a release before perhaps
        private_files.close_to_others(folder)
    if best is None:
        best = _train(store, folder)
    else:
        note(f"{folder} has a champion, {best}: it is served as it is")
    config = _start_server(folder, port)
    address = f"http://localhost:{port}"
    note(f"\nThe page is at {address}, served by {best}. Ask the API too:\n")
    loan = {field.name: field.default for field in default_definition().fields}
    known = Tokens(folder / "tokens").state() is not None
    token = ' --header "Authorization: Bearer $TOKEN"' if known else ""
    click.echo(f"curl {address}/v1/predictions{token} --json '{json.dumps(loan)}'")
    command = os.path.relpath(Path(sys.executable).with_name("peerloan"))
    note(f"\nWhat it decides on and keeps, by the command line:\n\nexport {CONFIG}={config}")
    note(f"{command} models list\n{command} ledger verify")
    note(f"\nStop it with `make stop`; its log is {folder / 'server.log'}.")


def _champion(store: Store, folder: Path) -> str | None:
    """The store's champion, if there is one; raises No if it can't be served."""
    try:
        champion = store.state().champion
        if champion is not None:
            store.load(champion)
    except RegistryError as error:
        raise No(
            f"the demonstration in {folder} is damaged: {error}; "
            f"move the folder away, or choose another one by --folder"
        ) from None
    return champion


def _train(store: Store, folder: Path) -> str:
    """Train on the sample and promote; gives the champion."""
    # A folder that has one needs none of the libraries that train.
    from peerloan.cli.bootstrap import train_on_sample

    outcomes = train_on_sample(folder / "sample.csv", store)
    for outcome in outcomes:
        note(f"{outcome.version}: cross-validated AUC {outcome.metrics['auc']:.3f}")
    best = outcomes[0].version
    store.promote(best, "the one chosen in the demonstration", first=True)
    return best


def _start_server(folder: Path, port: int) -> Path:
    """Serve, and give the file of its settings."""
    own = {name: str((folder / name).resolve()) for name in ("store", "tokens", "seal")}
    own["ledger"] = f"sqlite:///{(folder / 'ledger' / 'ledger.db').resolve()}"
    config = folder / "peerloan.toml"
    # A text of JSON is one of TOML too.
    lines = [f"{name} = {json.dumps(text, ensure_ascii=False)}\n" for name, text in own.items()]
    config.write_text("".join(lines), "utf-8")
    environment = os.environ | {f"{PREFIX}{name.upper()}": text for name, text in own.items()}
    command = [sys.executable, "-m", "peerloan", "serve", "--port", str(port)]
    log_file = folder / "server.log"
    private_files.close_to_others(log_file)
    with open(log_file, "ab", opener=private_files.opener) as log:
        server = subprocess.Popen(  # noqa: S603  our own command
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / "server.pid").write_text(str(server.pid))
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
            return config
        time.sleep(0.2)
    raise No(f"the server did not become ready; see {folder / 'server.log'}")


def _stop_server(pid_file: Path) -> bool:
    """Stop the server of an earlier demonstration; returns whether it was running."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return False
    running = _is_server(pid)
    if running:
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + _STOP_SECONDS
        while _is_server(pid):
            if time.monotonic() > until:
                raise No(f"the server, process {pid}, does not stop; try again, or kill it")
            time.sleep(0.1)
    pid_file.unlink(missing_ok=True)
    return running


def _port_served(pid_file: Path) -> int | None:
    """The port of the demonstration's server, if it runs."""
    try:
        command = _command(int(pid_file.read_text()))
    except (OSError, ValueError):
        return None
    found = re.search(r" peerloan serve --port ([0-9]+)", command)
    return None if found is None else int(found[1])


def _is_server(pid: int) -> bool:
    """Whether a process is a server: another program may have its number by now."""
    return " peerloan serve " in _command(pid)


def _command(pid: int) -> str:
    """The command line of a process, empty if there is none."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        if Path("/proc/self").exists():
            return ""
        asked = ["ps", "-p", str(pid), "-o", "command="]  # where there is no /proc
        command = subprocess.run(asked, capture_output=True, check=False, timeout=10).stdout  # noqa: S603
    return command.decode("utf-8", "replace")
