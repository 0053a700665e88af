"""Files that never end, files that are none, and models that take for ever: the service goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from helpers.apps import create_app
from helpers.probes import eventually, figures, predict, readiness, ready
from helpers.service import Serve, settings
from helpers.stores import VersionOf, challenge_unverified, promote_unverified
from peerloan.registry import Bundle, BundleError, Draft, Store, StoreTimeout, time_limits
from peerloan.registry import manifest as manifests
from peerloan.registry.manifest import read_manifest
from peerloan.settings import Settings
from peerloan.web.prediction import serving_models as following
from peerloan.web.prediction.serving_models import ServingModels
from peerloan.web.services import services_of

FLOAT = onnx.TensorProto.FLOAT
MEMORY_BYTES = 300_000_000


# What stands in a file's place


def pipe(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2_000_000_000)


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(path.parent):
        listening.bind(path.name)  # the whole path may be too long for one


PLACES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (pipe, "is a pipe, expected a regular file"),
    "sparse": (sparse, "2,000,000,000"),
    "endless": (lambda path: path.symlink_to("/dev/zero"), "is a device, expected a regular file"),
    "folder": (Path.mkdir, "is a folder, expected a regular file"),
    "socket": (bind_socket, "is a socket, expected a regular file"),
}


def put(place: str, path: Path) -> bytes:
    """Put something in a file's place; returns what it was."""
    content = path.read_bytes()
    path.unlink()
    PLACES[place][0](path)
    return content


def put_back(path: Path, content: bytes) -> None:
    """Put the file back where something else stands."""
    path.rmdir() if path.is_dir() else path.unlink()
    path.write_bytes(content)


def another(store: Store, version: str) -> str:
    """The version under another policy."""
    return store.publish_with_policy(version, store.load(version).policy.by_cost(10))


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_challenger_that_is_a_pipe_holds_no_promotion_up(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any], name: str
) -> None:
    additive, basic = version_of("additive"), version_of("basic")
    third = another(store, additive)
    store.promote(additive)
    service = serve(store)
    file = store.folder(basic) / name
    whole = put("pipe", file)
    challenge_unverified(store, basic)

    service.wait_for(lambda: "pipe" in ready(service).get("challenger_refused", ""))
    store.promote(third)
    service.wait_for(lambda: service.serving() == third)
    assert "refused" not in ready(service)
    assert predict(service, loan).json()["model"]["version"] == third
    assert service.log.read_text().count("challenger refused: ") == 1
    assert figures(service, "peerloan_refused_bundles_total")[("challenger",)] == 1

    put_back(file, whole)
    service.wait_for(lambda: "challenger_refused" not in ready(service))


@pytest.mark.parametrize("place", PLACES)
def test_a_champion_that_is_no_regular_file_is_refused_and_the_old_one_serves(
    store: Store, version_of: VersionOf, place: str
) -> None:
    additive, basic = version_of("additive"), version_of("basic")
    store.promote(basic)
    champion = ServingModels(store)
    file = store.folder(additive) / "scorecard.json"
    whole = put(place, file)
    promote_unverified(store, additive)
    champion.refresh()
    assert champion.current is not None
    assert champion.current.bundle.version == basic
    assert PLACES[place][1] in str(champion.refusal)

    put_back(file, whole)
    champion.refresh()
    assert champion.current.bundle.version == additive
    assert champion.refusal is None


def test_a_pipe_in_the_place_of_a_state_is_told_and_followed_once_it_is_one(
    store: Store,
    version_of: VersionOf,
    serve: Serve,
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    additive, basic = version_of("additive"), version_of("basic")
    store.promote(additive)
    service = serve(store)
    store.promote(basic)
    service.wait_for(lambda: service.serving() == basic)
    store.rollback()
    file = store.root / "aliases" / "000004.json"
    state = (store.root / "aliases" / "000002.json").read_text("utf-8")
    pipe(file)

    service.wait_for(lambda: "refused" in ready(service))
    assert "000004.json can't be read: is a pipe" in service.log.read_text()
    listed = run("models", "list", timeout=60)
    assert listed.returncode == 1
    assert listed.stderr.count("\n") == 1
    assert "000004.json can't be read: is a pipe" in listed.stderr

    file.unlink()
    file.write_text(state.replace('"number": 2', '"number": 4'))
    service.wait_for(lambda: service.serving() == basic)
    service.wait_for(lambda: "refused" not in ready(service))


# Runs a command, and says how much memory it took at most.
MEASURED = """
import atexit, re, sys
from pathlib import Path
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
atexit.register(lambda: print(peak() * 1024))
from peerloan.cli.main import main
main()
"""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["manifest.json", "scorecard.json"])
def test_verify_says_what_stands_there_and_reads_none_of_it(
    store: Store, version_of: VersionOf, place: str, name: str
) -> None:
    version = version_of("additive")
    put(place, store.folder(version) / name)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "models", "verify", version],
        env=os.environ | settings(store.root),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert f"{version}: " in line
    assert name in line
    assert PLACES[place][1] in line
    assert int(done.stdout) < MEMORY_BYTES


def test_a_link_to_a_regular_file_is_as_good_as_the_file(
    store: Store, version_of: VersionOf, tmp_path: Path
) -> None:
    file = store.folder(version_of("additive")) / "scorecard.json"
    shutil.move(file, tmp_path / "elsewhere.json")
    file.symlink_to(tmp_path / "elsewhere.json")
    assert store.load(version_of("additive")).version == version_of("additive")


# How much a version may be


def test_a_version_beyond_the_bound_is_refused_before_any_of_it_is_read(
    store: Store, version_of: VersionOf
) -> None:
    folder = store.folder(version_of("additive"))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["scorecard.json"]["bytes"] = 2_000_000_000
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "scorecard.json").unlink()
    sparse(folder / "scorecard.json")
    expected = (
        r"expected at most 1,000,000,000 bytes .* largest is scorecard\.json with 2,000,000,000"
    )
    with pytest.raises(BundleError, match=expected):
        store.load(version_of("additive"))


def test_a_version_beyond_the_bound_is_not_published(
    store: Store, version_of: VersionOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.folder(version_of("additive"))
    manifest, _ = read_manifest(folder)
    files = {name: (folder / name).read_bytes() for name in manifest.files}
    before = sorted(path.name for path in (store.root / "versions").iterdir())
    total = sum(map(len, files.values()))
    monkeypatch.setattr(manifests, "MAX_BUNDLE_BYTES", total // 2)
    with pytest.raises(
        BundleError,
        match=f"expected at most {total // 2:,} bytes in total, given {total:,}; the largest is",
    ):
        store.publish(Draft(manifest, files))
    assert sorted(path.name for path in (store.root / "versions").iterdir()) == before


# A file system that stalls


class Stalled:
    """Folders whose files hang, as on a network file system that has stalled, until released: a
    real one takes a mount, and so a superuser.
    """

    def __init__(self) -> None:
        self._released: dict[Path, threading.Event] = {}
        self.waiting: list[str] = []

    def stall(self, store: Store, version: str) -> None:
        """Let what reads a version hang."""
        self._released[store.root / "versions" / version] = threading.Event()

    def release(self) -> None:
        """Let all that hang go on."""
        for event in self._released.values():
            event.set()

    def read(self, folder: Path) -> Bundle:
        """As `Bundle.read`, but for what hangs."""
        if folder in self._released:
            self.waiting.append(folder.name)
            self._released[folder].wait()
            self.waiting.remove(folder.name)
        return READ(folder)


READ = Bundle.read


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stalled]:
    """What hangs in a test; aliases are followed, and refused versions tried again, at once."""
    hanging = Stalled()
    monkeypatch.setattr(Bundle, "read", hanging.read)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.1)
    yield hanging
    hanging.release()


def test_while_the_challenger_hangs_promotions_are_followed(
    store: Store,
    version_of: VersionOf,
    stalled: Stalled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    additive, basic = version_of("additive"), version_of("basic")
    third = another(store, additive)
    store.promote(additive)
    challenge_unverified(store, basic)
    stalled.stall(store, basic)
    monkeypatch.setattr(following, "CHALLENGER_START_SECONDS", 0.1)
    champion = ServingModels(store)
    champion.watch()
    assert stalled.waiting == [basic]
    store.promote(third)
    eventually(lambda: champion.current is not None and champion.current.bundle.version == third)
    assert champion.challenger is None, "it hangs, and its limit is far"
    assert stalled.waiting == [basic]
    stalled.release()
    eventually(lambda: champion.challenger is not None)


def test_a_champion_that_hangs_is_told_once_and_taken_up_when_it_returns(
    store: Store,
    version_of: VersionOf,
    stalled: Stalled,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    additive, basic = version_of("additive"), version_of("basic")
    store.promote(basic)
    app = create_app(Settings(store.root), on_loopback=True)
    champion, client = services_of(app).serving_models, app.test_client()
    stalled.stall(store, additive)
    monkeypatch.setattr(time_limits, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(following, "NOT_FOLLOWED_SECONDS", 0.7)
    promote_unverified(store, additive)

    eventually(lambda: champion.refusal is not None)
    said = readiness(client)
    assert said["status"] == "ready"
    assert said["model"]["version"] == basic
    assert said["refused"].startswith(f"loading {additive} did not end within 0.5 seconds")
    assert str(store.root) not in said["refused"]
    eventually(lambda: "not_followed" in readiness(client))
    assert "the champion for" in readiness(client)["not_followed"]
    assert "challenger" not in readiness(client)["not_followed"]
    assert stalled.waiting == [additive], "however often it was tried again"
    refusals = [each for each in caplog.records if "champion refused" in each.getMessage()]
    assert len(refusals) == 1

    monkeypatch.setattr(time_limits, "CALL_SECONDS", 60.0)
    stalled.release()
    eventually(lambda: readiness(client).get("model", {}).get("version") == additive)
    assert "refused" not in readiness(client)
    eventually(lambda: "not_followed" not in readiness(client))


def test_a_process_that_starts_while_the_champion_hangs_says_so_until_it_has_come(
    store: Store,
    version_of: VersionOf,
    stalled: Stalled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = version_of("additive")
    store.promote(version)
    stalled.stall(store, version)
    monkeypatch.setattr(following, "START_SECONDS", 0.2)
    app = create_app(Settings(store.root), on_loopback=True)
    client = app.test_client()
    assert client.get("/healthz").status_code == 503
    reason = "the champion is still being loaded after 0.2 seconds"
    assert readiness(client)["refused"] == reason

    stalled.release()
    eventually(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/healthz").status_code == 200


def test_a_call_that_hangs_is_an_error_and_no_second_one_is_begun(
    store: Store,
    version_of: VersionOf,
    stalled: Stalled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = version_of("additive")
    stalled.stall(store, version)
    monkeypatch.setattr(time_limits, "CALL_SECONDS", 0.2)
    for _ in range(3):
        with pytest.raises(StoreTimeout, match=rf"loading {version} did not end within 0\.2 s"):
            store.load(version)
    assert stalled.waiting == [version]
    for call in (store.promote, store.challenge):
        with pytest.raises(StoreTimeout, match=r"did not end within 0\.2 seconds"):
            call(version)
    stalled.release()
    monkeypatch.setattr(time_limits, "CALL_SECONDS", 60.0)
    eventually(lambda: not time_limits.some_call_hangs())
    assert store.load(version).version == version


STALLED = """
import sys, threading
from peerloan.registry import store
def hang(folder):
    print("hangs", flush=True)
    threading.Event().wait()
store.Bundle.read = hang
from peerloan.cli.main import main
main()
"""


@pytest.mark.parametrize("command", ["verify", "promote"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_on_a_store_that_hangs_can_be_stopped(
    store: Store, version_of: VersionOf, command: str, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STALLED, "models", command, version_of("additive")],
        env=os.environ | settings(store.root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "hangs\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.strip() == "peerloan: stopped"


def test_a_call_that_hangs_ends_no_process_that_runs_commands_by_itself(tmp_path: Path) -> None:
    code = (
        "import threading\n"
        "from pathlib import Path\n"
        "from peerloan.cli import main\n"
        "from peerloan.registry.alias_state import StoreFault\n"
        "from peerloan.registry.time_limits import Calls\n"
        "try:\n"
        "    Calls(Path()).within(0.01, 'waiting', threading.Event().wait)\n"
        "except StoreFault:\n"
        "    pass\n"
        "try:\n"
        "    main(['no-such-command'])\n"
        "except SystemExit as end:\n"
        "    print('goes on after', end.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | settings(tmp_path / "store"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "goes on after 2\n")


# The follower's age


def test_the_figures_say_when_the_store_was_followed_last(
    store: Store, version_of: VersionOf, serve: Serve
) -> None:
    store.promote(version_of("additive"))
    service = serve(store, workers=2)

    def followed() -> dict[tuple[str, ...], float]:
        return figures(service, "peerloan_store_followed_timestamp_seconds")

    began = time.time()
    service.wait_for(lambda: min(followed().values()) > began)
    assert set(followed()) == {("champion",), ("challenger",)}
    pipe(store.root / "aliases" / "000002.json")
    service.wait_for(lambda: service.log.read_text().count("champion refused") == 2)
    stopped = followed()
    time.sleep(1.5)  # three looks
    assert followed() == stopped
    (store.root / "aliases" / "000002.json").unlink()
    service.wait_for(lambda: min(followed().values()) > max(stopped.values()))
    service.wait_for(lambda: "refused" not in ready(service))
