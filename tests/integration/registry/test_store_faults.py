"""Kill the process, or fail the disk, at every single step of a change: the store stays whole.

The steps are counted in a process of its own (this file, run as a script), since an audit hook
can't be taken out again. It is warmed up once, and forks for every step.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from peerloan import atomic_files
from peerloan.registry import AliasState, Draft, RegistryError, Store
from peerloan.registry.manifest import read_manifest

FORMATS = Path(__file__).parents[2] / "formats"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir"}

Action = Callable[[Store], object]


# In the pytest process


@cache
def run_script(mode: str) -> dict[str, Any]:
    """What happened at the steps of every scenario."""
    with tempfile.TemporaryDirectory() as top:
        done = subprocess.run(
            [sys.executable, __file__, mode, top],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    found: dict[str, Any] = dict(map(json.loads, done.stdout.splitlines()))
    print(mode, found)
    return found | {"error": done.stderr[-4000:]}


@pytest.mark.longer
@pytest.mark.parametrize(
    ("scenario", "least"),
    [
        ("publish and promote", 25),
        ("first publish and promote", 25),
        ("publish that fails late", 20),
        ("challenge", 5),
        ("rollback", 5),
        ("delete", 5),
    ],
)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_state(
    record_property: Callable[[str, object], None], scenario: str, least: int
) -> None:
    results = run_script("kill")
    assert scenario in results, results["error"]
    found = results[scenario]
    record_property("kill points", found["points"])
    assert found["points"] > least
    assert found["old"], "the first steps change nothing that can be seen"
    if scenario != "publish that fails late":
        assert found["new"], "the last ones tidy up after it"


@pytest.mark.parametrize("scenario", ["publish and promote", "challenge", "rollback"])
@pytest.mark.parametrize("mode", ["once", "from then on"])
def test_a_failing_disk_is_told_and_leaves_the_store_as_it_was(
    record_property: Callable[[str, object], None], scenario: str, mode: str
) -> None:
    results = run_script(mode)
    assert scenario in results, results["error"]
    found = results[scenario]
    record_property("fault points", found["points"])
    assert found["points"] > 5
    assert found["old"]


# In the script


class Steps:
    """Counts the steps that concern the store, and interferes at the chosen one."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.left = 0
        self.at: Callable[[str], None] = lambda _step: None
        self.seen: list[str] = []

    def watch(self, root: Path, left: int, at: Callable[[str], None]) -> None:
        self.root, self.left, self.at, self.seen = str(root), left, at, []

    def stop(self) -> None:
        self.root = None

    def step(self, what: str, path: object) -> None:
        if self.root is None or not str(path).startswith(self.root):
            return
        self.seen.append(f"{what} {str(path)[len(self.root) :]}")
        self.left -= 1
        if self.left <= 0:
            self.at(self.seen[-1])

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if self.root is None:
            return
        if event in EVENTS:
            path = args[0]
            if isinstance(path, str) and not path.startswith("/"):  # relative to a descriptor
                path = f"{self.root}/{path}"
            self.step(event, path)
        elif event == "open" and isinstance(args[2], int) and args[2] & WRITING:
            self.step("open", args[0])


steps = Steps()


def instrument() -> None:
    """Count what the audit hook does not see: fsync, links made, files empty or half-written."""
    fsync, link, write, open_file = os.fsync, os.link, atomic_files.write, io.open

    def told_open(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        opened = open_file(file, mode, *rest, **named)
        if set(mode) & set("wxa+"):
            steps.step("opened", file)
        return opened

    def told_fsync(descriptor: int) -> None:
        steps.step("fsync", Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def told_link(source: Any, target: Any) -> None:
        link(source, target)
        steps.step("linked", target)

    def told_write(path: Path, content: bytes, *mode: int) -> None:
        if steps.root is not None:
            watched, steps.root = steps.root, None
            try:
                path.write_bytes(content[: len(content) // 2])
            finally:
                steps.root = watched
            steps.step("half-written", path)
        write(path, content, *mode)

    io.open = told_open
    os.fsync, os.link = told_fsync, told_link  # type: ignore[assignment]
    atomic_files.write = told_write  # type: ignore[assignment]
    sys.addaudithook(steps.audit)


def ready(kind: str = "scorecard") -> Draft:
    """A tiny version, waiting for its name."""
    top = FORMATS / f"format-1-{kind}"
    folder = next(path for path in top.iterdir() if path.is_dir())
    manifest, _ = read_manifest(folder)
    return Draft(manifest, {name: (folder / name).read_bytes() for name in manifest.files})


def publish_and_promote(store: Store) -> None:
    store.promote(store.publish(DRAFT), "because")


def fail_late(store: Store) -> None:
    """A disk that fails when the manifest is in place already."""
    sync = atomic_files.sync

    def failing(folder: Path) -> None:
        if folder.name == "versions":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(folder)

    atomic_files.sync = failing
    try:
        store.publish(DRAFT)
    except RegistryError:
        pass
    finally:
        atomic_files.sync = sync


SCENARIOS: dict[str, Action] = {
    "publish and promote": publish_and_promote,
    "first publish and promote": publish_and_promote,
    "publish that fails late": fail_late,
    "challenge": lambda store: store.challenge(store.versions()[-1], "because"),
    "rollback": lambda store: store.rollback("because"),
    "delete": lambda store: store.delete(store.versions()[-1]),
}


def template(scenario: str, root: Path) -> Store:
    """The store before the change."""
    store = Store(root)
    if not scenario.startswith("first"):
        for _ in range(2):
            store.promote(store.publish(DRAFT))
        store.publish(DRAFT)
    return store


def check_whole(store: Store, old: AliasState, versions: list[str], scenario: str) -> bool:
    """Whether the state is the new one; fails unless everything that is listed works."""
    if scenario == "delete":
        return check_deleted(store, old, versions)
    state = store.state()
    if state != old:
        assert state.number == old.number + 1, (state, old)
        assert store.history()[:-1] == store.history()[: old.number]
    for version in (state.champion, state.challenger):
        assert version is None or store.load(version)
    listed = store.versions()
    assert set(versions) <= set(listed), (versions, listed)
    assert len(listed) <= len(versions) + 1
    for version in listed:
        store.load(version)
    return state != old


def check_deleted(store: Store, old: AliasState, versions: list[str]) -> bool:
    """Whether the newest version is none any more; what was cut short can be ended."""
    *others, version = versions
    deleted = version not in store.versions()
    assert store.versions() == (others if deleted else versions)
    for each in store.versions():
        store.load(each)
    state = store.state()
    assert (state.champion, state.challenger, state.rollback_line) == (
        old.champion,
        None,
        old.rollback_line,
    )
    assert state.deleted in (None, version)
    if store.pending_deletions():
        assert store.pending_deletions() == [version]
        store.delete(version)
    store.delete(store.publish(DRAFT))
    assert not [*store.root.glob("versions/.*")], "the next deletion removes what was left"
    return deleted


def check_goes_on(store: Store) -> None:
    """The next change works, whatever lies about."""
    number = store.state().number
    version = store.publish(DRAFT)
    assert store.promote(version).number == number + 1
    assert store.state().champion == version
    assert Store(store.root).load(version)


def kill(scenario: str, top: Path) -> dict[str, int]:
    """Kill the process at each step in turn."""
    original = template(scenario, top / "template")
    old, versions = original.state(), original.versions()
    found = {"points": 0, "old": 0, "new": 0}
    while True:
        store = Store(top / "store")
        shutil.rmtree(store.root, ignore_errors=True)
        if original.root.exists():
            shutil.copytree(original.root, store.root)
        child = os.fork()
        if child == 0:
            try:
                steps.watch(
                    store.root,
                    found["points"] + 1,
                    lambda _step: os.kill(os.getpid(), signal.SIGKILL),
                )
                SCENARIOS[scenario](store)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), status
        is_new = check_whole(store, old, versions, scenario)
        check_goes_on(store)
        if status == 0:
            return found
        found["points"] += 1
        found["new" if is_new else "old"] += 1


def fail(scenario: str, top: Path, once: bool) -> dict[str, int]:
    """Let each step in turn fail, alone or with all after it."""
    original = template(scenario, top / "template")
    old, versions = original.state(), original.versions()
    found = {"points": 0, "old": 0, "new": 0}
    while True:
        store = Store(top / "store")
        shutil.rmtree(store.root, ignore_errors=True)
        shutil.copytree(original.root, store.root)
        before = sorted(map(str, store.root.rglob("*")))
        code = errno.ENOSPC if found["points"] % 2 else errno.EIO
        failed: list[str] = []

        def fault(step: str, code: int = code, failed: list[str] = failed) -> None:
            if not failed or not once:
                failed.append(step)
                raise OSError(code, os.strerror(code))

        told = ""
        steps.watch(store.root, found["points"] + 1, fault)
        try:
            SCENARIOS[scenario](store)
        except RegistryError as error:
            told = str(error)
        finally:
            steps.stop()
        is_new = check_whole(store, old, versions, scenario)
        if not failed:
            check_goes_on(store)
            return found
        if told:
            assert os.strerror(code) in told, told
            assert str(store.root) in told, told
            assert ("is visible" in told) == is_new, (failed[0], told)
            published = set(store.versions()) - set(versions)
            if once and not is_new and not published:
                left = sorted(map(str, store.root.rglob("*")))
                assert [path for path in left if path not in before] == [], failed[0]
            # What was published before the promotion failed stays; a half one never does.
            assert not published or once is False or "aliases" in failed[0], failed[0]
        else:
            # A folder that is there already, or a hidden name that nobody reads.
            assert failed[0].startswith(("os.mkdir", "os.remove")), failed[0]
            assert is_new
        check_goes_on(store)
        found["points"] += 1
        found["new" if is_new else "old"] += 1


if __name__ == "__main__":
    DRAFT = ready()
    # Warm: what is imported or cached on first use is no step of the store's.
    mode, top = sys.argv[1], Path(sys.argv[2])
    publish_and_promote(Store(top / "warm"))
    instrument()
    for name in SCENARIOS:
        folder = top / name
        if mode == "kill":
            print(json.dumps([name, kill(name, folder)]), flush=True)
        elif not name.startswith(("first", "publish that", "delete")):
            print(json.dumps([name, fail(name, folder, mode == "once")]), flush=True)
