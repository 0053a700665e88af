"""Granian's worker processes: restarted when they die, ended with the process that made them.

Granian itself stops, with its healthy workers, if one dies within seconds of its start, and its
workers survive it if it is killed. This module uses private parts of Granian: import it through
`granian`, which falls back for untested releases.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import RawValue
from typing import TYPE_CHECKING, Any

from granian.server.mp import MPServer

from peerloan.errors import PeerLoanError
from peerloan.web.server import granian_deferred
from peerloan.web.server.shutdown import GRACE_SECONDS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)
# The first restart is immediate; later ones wait from the first pause up to the longest one.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
# After a worker has lived this long, the pauses start again from the first.
_QUIET_SECONDS = 60.0
# Starts of each worker before the server gives up, if no worker was ever up.
_MAX_STARTS = 5
_PARENT_CHECK_SECONDS = 0.5
# The private names of Granian's server that restarts use.
_INTERNALS = (
    *("_spawn_worker", "respawn_interval", "main_loop_interrupt", "interrupt_signal"),
    *("interrupt_children", "reload_signal", "wrks"),
)


class NoWorkerStarted(PeerLoanError):
    """No worker could start; the log has the reason."""


@dataclass
class Restarts:
    """The restarts of one worker.

    It has the number of deaths in a row, the process that died last, and the time of the next start
    (monotonic seconds; None while the worker runs).
    """

    deaths: int = 0
    dead: object = None
    due: float | None = None

    def record_death(self, now: float, lifetime: float) -> float:
        """Schedule the next start; returns the pause until then, in seconds."""
        self.deaths = 1 if lifetime >= _QUIET_SECONDS else self.deaths + 1
        pause = 0.0
        if self.deaths > 1:
            pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** (self.deaths - 2), _LONGEST_PAUSE_SECONDS)
        self.due = now + pause
        return pause


class Server(MPServer):
    """Granian with workers that are restarted, provided that one of them was ever up.

    Raises AttributeError if Granian lacks the private parts that this uses.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        granian_deferred.check()
        if missing := [name for name in _INTERNALS if not hasattr(self, name)]:
            raise AttributeError(f"its server has no {', '.join(missing)}")
        # Shared with the workers, without a lock that a killed one could hold.
        self._was_up = RawValue("b", 0)
        self._restarts = [Restarts() for _ in range(self.workers)]
        self._failure: str | None = None
        # During a reload: the workers to replace, and an old one that runs until its successor is
        # up.
        self._to_replace: list[int] = []
        self._old: Any = None
        self._old_until = 0.0

    def run(self) -> None:
        """Serve until stopped; raises NoWorkerStarted."""
        loader = partial(_load, was_up=self._was_up, parent=os.getpid())
        self.serve(target_loader=partial(loader, self.target), wrap_loader=False)
        if self._failure is not None:
            raise NoWorkerStarted(self._failure)

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        """Supervise the workers. Granian calls this once it has started them."""
        self._spawn = partial(
            self._spawn_worker, target=spawn_target, callback_loader=target_loader
        )
        while not self.interrupt_signal:
            self._record_deaths()
            if self._failure is not None:
                break
            if self.reload_signal:
                self._begin_reload()
            for index in self._take_due():
                self._start(index)
            self._go_on_reloading()
            self.main_loop_interrupt.wait(self._seconds_to_wait())
            self.main_loop_interrupt.clear()
        if self._old is not None:
            _retire(self._old)

    def _begin_reload(self) -> None:
        """Schedule the replacement of all workers, one by one; a dead one is started at once."""
        self.reload_signal = False
        self._to_replace = list(range(self.workers))
        for restarts in self._restarts:
            restarts.due = None if restarts.due is None else time.monotonic()

    def _go_on_reloading(self) -> None:
        """Start the next new worker, or end the old one whose successor has started.

        Nothing blocks here: workers that die meanwhile are restarted as usual.
        """
        now = time.monotonic()
        if self._old is not None:
            if now < self._old_until:
                return
            _retire(self._old)
            self._old = None
        if self._to_replace:
            self._old = self._start(self._to_replace[0])
            self._old_until = now + self.respawn_interval

    def _start(self, index: int) -> Any:
        """Start a worker; returns the one that it replaces."""
        worker: Any = self._spawn(idx=index)
        worker.start()
        old, self.wrks[index] = self.wrks[index], worker
        if index in self._to_replace:
            self._to_replace.remove(index)
        return old

    def _record_deaths(self) -> None:
        """Record each death of a worker once."""
        self.interrupt_children.clear()
        for index, worker in enumerate(self.wrks):
            code = worker.inner.exitcode
            restarts = self._restarts[index]
            if code is None or restarts.dead is worker:
                continue
            restarts.dead = worker
            now = time.monotonic()
            pause = restarts.record_death(now, now - worker.birth)
            log.error(
                "worker %d (process %s) ended unexpectedly, exit code %d; "
                "it starts again in %.0f s",
                *(index + 1, worker.inner.pid, code, pause),
            )
            if not self._was_up.value and all(r.deaths >= _MAX_STARTS for r in self._restarts):
                self._failure = (
                    f"no worker could start in {_MAX_STARTS} tries each, the last ended with exit "
                    f"code {code}; the lines above say why"
                )

    def _take_due(self) -> list[int]:
        now = time.monotonic()
        due = [i for i, r in enumerate(self._restarts) if r.due is not None and r.due <= now]
        for index in due:
            self._restarts[index].due = None
        return due

    def _seconds_to_wait(self) -> float | None:
        due = [each.due for each in self._restarts if each.due is not None]
        due += [] if self._old is None else [self._old_until]
        return max(0.0, min(due) - time.monotonic()) if due else None


def _retire(worker: Any) -> None:
    """Terminate a worker, and kill it if it does not end within the grace time."""
    worker.terminate()

    def wait() -> None:
        worker.join(GRACE_SECONDS)
        if worker.is_alive():
            log.warning("process %s did not end in time and is killed", worker.inner.pid)
            worker.kill()

    threading.Thread(target=wait, name="retire", daemon=True).start()


def _load(factory: str, was_up: Any, parent: int) -> WSGIApplication:
    """Make the application in a new worker; `factory` is `module:function`."""
    # Until Granian sets its own handlers, a worker has those of its parent process, which would
    # swallow the signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    granian_deferred.install()
    module, _, name = factory.partition(":")
    try:
        make: Callable[[], WSGIApplication] = getattr(importlib.import_module(module), name)
        application = make()
    except Exception as error:
        ours = isinstance(error, PeerLoanError)
        log.error("a worker could not start: %s", error, exc_info=None if ours else error)
        sys.exit(1)
    was_up.value = 1
    return application


def _end_with(parent: int) -> None:
    """End this process after its parent: otherwise nobody could stop it."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    log.error("the process that started this worker is gone; it ends")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
