"""`peerloan demo`: write a sample, train on it, promote a version and serve it."""

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
from peerloan.cli.console import CommandError, note
from peerloan.database import Database
from peerloan.loan import default_definition
from peerloan.registry import RegistryError, Store
from peerloan.settings import CONFIG, PREFIX
from peerloan.web.auth.tokens import Tokens
from peerloan.web.server.bind_address import find_address
from peerloan.web.server.shutdown import GRACE_SECONDS

_READY_SECONDS = 30.0
# Longer than the server waits for its workers to end.
_STOP_SECONDS = GRACE_SECONDS + 5


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder of the sample, the store and the server's log.",
)
@click.option(
    "--port",
    default=5000,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port to listen on, on 127.0.0.1.",
)
@click.option("--stop", is_flag=True, help="Only stop the demonstration's server.")
def demo(folder: Path, port: int, stop: bool) -> None:
    """Run a demonstration: train on a sample, and serve the result.

    Writes a sample book, trains two scorecards on it, promotes the better one, and serves it in
    the background. If the folder has a champion already, nothing is trained. A running server
    is restarted.
    """
    pid_file = folder / "server.pid"
    if stop:
        note("stopped" if _stop_server(pid_file) else "the demonstration's server is not running")
        return
    store = Store(folder / "store")
    best = _champion(store, folder)
    if port != _port_served(pid_file):
        find_address("127.0.0.1", port, "peerloan demo")  # before the running server is stopped
    if _stop_server(pid_file):
        note("restarting the running server")
    find_address("127.0.0.1", port, "peerloan demo")
    folder.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
    if (folder / "server.log").exists():  # an older release may have left it open
        private_files.close_to_others(folder)
    if best is None:
        best = _train(store, folder)
    else:
        note(f"{folder} has a champion already: {best}")
    config = _start_server(folder, port)
    address = f"http://localhost:{port}"
    note(f"\nThe page is at {address}, served by {best}. Call the API:\n")
    loan = {field.name: field.default for field in default_definition().fields}
    has_tokens = Tokens(folder / "tokens").state() is not None
    token = ' --header "Authorization: Bearer $TOKEN"' if has_tokens else ""
    click.echo(f"curl {address}/v1/predictions{token} --json '{json.dumps(loan)}'")
    command = os.path.relpath(Path(sys.executable).with_name("peerloan"))
    note(f"\nLook at its versions and decisions:\n\nexport {CONFIG}={config}")
    note(f"{command} models list\n{command} ledger verify")
    note(f"\nStop it with `make stop`; its log is {folder / 'server.log'}.")


def _champion(store: Store, folder: Path) -> str | None:
    """Return the store's champion, if there is one. Raises CommandError if it can't be
    loaded.
    """
    try:
        champion = store.state().champion
        if champion is not None:
            store.load(champion)
    except RegistryError as error:
        raise CommandError(
            f"the demonstration in {folder} is damaged: {error}; "
            f"move the folder away, or name another one with --folder"
        ) from None
    return champion


def _train(store: Store, folder: Path) -> str:
    """Train on the sample, promote the chosen version, and return its name."""
    # Imported here: a folder that has a champion is served without the training libraries.
    from peerloan.cli.commands.bootstrap import train_on_sample

    outcomes = train_on_sample(folder / "sample.csv", store)
    for outcome in outcomes:
        note(f"{outcome.version}: cross-validated AUC {outcome.metrics['auc']:.3f}")
    best = outcomes[0].version
    store.promote(best, "chosen in the demonstration", first=True)
    return best


def _start_server(folder: Path, port: int) -> Path:
    """Start the server and wait until it is ready. Returns its settings file."""
    settings = {name: str((folder / name).resolve()) for name in ("store", "tokens", "seal")}
    settings["ledger"] = f"sqlite:///{(folder / 'ledger' / 'ledger.db').resolve()}"
    config = folder / "peerloan.toml"
    # A JSON string is a TOML string too.
    lines = [
        f"{name} = {json.dumps(text, ensure_ascii=False)}\n" for name, text in settings.items()
    ]
    config.write_text("".join(lines), "utf-8")
    environment = os.environ | {f"{PREFIX}{name.upper()}": text for name, text in settings.items()}
    # The folder may be of an earlier release.
    Database(settings["ledger"]).upgrade()
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
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
            return config
        time.sleep(0.2)
    failure = (
        f"was not ready after {_READY_SECONDS:.0f} s"
        if server.poll() is None
        else f"ended with exit code {server.returncode}"
    )
    raise CommandError(f"the server {failure}; see {folder / 'server.log'}")


def _stop_server(pid_file: Path) -> bool:
    """Stop the server of an earlier demonstration. Returns whether it was running."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return False
    running = _is_server(pid)
    if running:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while _is_server(pid):
            if time.monotonic() > deadline:
                raise CommandError(
                    f"the server (process {pid}) does not stop; try again, or kill it"
                )
            time.sleep(0.1)
    pid_file.unlink(missing_ok=True)
    return running


def _port_served(pid_file: Path) -> int | None:
    """Return the port of the demonstration's server, if it is running."""
    try:
        command = _command(int(pid_file.read_text()))
    except (OSError, ValueError):
        return None
    match = re.search(r" peerloan serve --port ([0-9]+)", command)
    return None if match is None else int(match[1])


def _is_server(pid: int) -> bool:
    """Return whether a process is a PeerLoan server. Process numbers are reused."""
    return " peerloan serve " in _command(pid)


def _command(pid: int) -> str:
    """Return the command line of a process; empty if there is no such process."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        if Path("/proc/self").exists():
            return ""
        ps = ["ps", "-p", str(pid), "-o", "command="]  # on systems without /proc
        command = subprocess.run(ps, capture_output=True, check=False, timeout=10).stdout  # noqa: S603
    return command.decode("utf-8", "replace")
