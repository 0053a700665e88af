"""Granian's worker processes: restarted if they die, and ended if their parent process dies.

Granian alone differs in two ways. If a worker dies within seconds of its start, Granian stops all
workers. If Granian's main process is killed, its workers continue to run. This module uses private
parts of Granian: import it through `granian`, which uses Granian's public interface instead if the
installed release was not tested.
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
# A worker that dies is restarted at once. If it dies again and again, the pauses before its
# restarts double from the first to the longest one.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
# A worker that has run this long is restarted at once again.
_STABLE_SECONDS = 60.0
# If no worker could ever start, the server gives up after so many starts of each.
_MAX_STARTS = 5
# Interval at which a worker checks that its parent process still runs.
_PARENT_CHECK_SECONDS = 0.5
# The private names of Granian's server that restarts use.
_INTERNALS = (
    *("_spawn_worker", "respawn_interval", "main_loop_interrupt", "interrupt_signal"),
    *("interrupt_children", "reload_signal", "wrks"),
)


class NoWorkerStarted(PeerLoanError):
    """No worker could start. The log has the reason of each."""


@dataclass
class Restarts:
    """The restarts of one worker.

    `deaths` is the number of deaths in a row, `last_dead` the process that died last, and `due` the
    time of the next start (monotonic seconds; None while the worker runs).
    """

    deaths: int = 0
    last_dead: object = None
    due: float | None = None

    def record_death(self, now: float, lifetime: float) -> float:
        """Schedule the next start, and return the pause until then in seconds.

        `now` is in monotonic seconds, `lifetime` is how many seconds the worker has run.
        """
        self.deaths = 1 if lifetime >= _STABLE_SECONDS else self.deaths + 1
        pause = 0.0
        if self.deaths > 1:
            pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** (self.deaths - 2), _LONGEST_PAUSE_SECONDS)
        self.due = now + pause
        return pause


class Server(MPServer):
    """Granian's server with workers that are restarted if they die.

    If no worker could ever start, the server gives up. Raises AttributeError if Granian lacks the
    private parts that this class uses.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        granian_deferred.check()
        if missing := [name for name in _INTERNALS if not hasattr(self, name)]:
            raise AttributeError(f"its server has no {', '.join(missing)}")
        # Whether any worker could start. Shared with the workers, without a lock: a worker that is
        # killed would never release it.
        self._was_up = RawValue("b", 0)
        self._restarts = [Restarts() for _ in range(self.workers)]
        self._failure: str | None = None
        # During a reload: the indices of the workers to replace, and the old worker that runs until
        # its successor has had time to start.
        self._to_replace: list[int] = []
        self._old: Any = None
        self._old_until = 0.0

    def run(self) -> None:
        """Serve until stopped. Raises NoWorkerStarted."""
        loader = partial(_load, was_up=self._was_up, parent=os.getpid())
        self.serve(target_loader=partial(loader, self.target), wrap_loader=False)
        if self._failure is not None:
            raise NoWorkerStarted(self._failure)

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        """Supervise the workers until the server stops. Granian calls this after their start."""
        self._spawn = partial(
            self._spawn_worker, target=spawn_target, callback_loader=target_loader
        )
        while not self.interrupt_signal:
            self._record_deaths()
            if self._failure is not None:
                break
            if self.reload_signal:
                self._begin_reload()
            for index in self._pop_due():
                self._start(index)
            self._continue_reload()
            self.main_loop_interrupt.wait(self._seconds_to_wait())
            self.main_loop_interrupt.clear()
        if self._old is not None:
            _stop_worker(self._old)

    def _begin_reload(self) -> None:
        """Schedule the replacement of all workers, one by one; start dead ones without a pause."""
        self.reload_signal = False
        self._to_replace = list(range(self.workers))
        for restarts in self._restarts:
            restarts.due = None if restarts.due is None else time.monotonic()

    def _continue_reload(self) -> None:
        """Stop the old worker if its successor had time to start, then replace the next one.

        This does not block, so workers that die during a reload are restarted as usual.
        """
        now = time.monotonic()
        if self._old is not None:
            if now < self._old_until:
                return
            _stop_worker(self._old)
            self._old = None
        if self._to_replace:
            self._old = self._start(self._to_replace[0])
            self._old_until = now + self.respawn_interval

    def _start(self, index: int) -> Any:
        """Start a worker, and return the one that it replaces."""
        worker: Any = self._spawn(idx=index)
        worker.start()
        old, self.wrks[index] = self.wrks[index], worker
        if index in self._to_replace:
            self._to_replace.remove(index)
        return old

    def _record_deaths(self) -> None:
        """Schedule the restart of each worker that has died since the last call."""
        self.interrupt_children.clear()
        for index, worker in enumerate(self.wrks):
            code = worker.inner.exitcode
            restarts = self._restarts[index]
            if code is None or restarts.last_dead is worker:
                continue
            restarts.last_dead = worker
            now = time.monotonic()
            pause = restarts.record_death(now, now - worker.birth)
            log.error(
                "worker %d (process %s) ended unexpectedly, exit code %d; "
                "it starts again in %.0f s",
                *(index + 1, worker.inner.pid, code, pause),
            )
            if not self._was_up.value and all(r.deaths >= _MAX_STARTS for r in self._restarts):
                self._failure = (
                    f"no worker could start in {_MAX_STARTS} tries each; the last one ended with "
                    f"exit code {code}; the log above has the reasons"
                )

    def _pop_due(self) -> list[int]:
        """Return the indices of the workers to start now, and mark them as started."""
        now = time.monotonic()
        due = [i for i, r in enumerate(self._restarts) if r.due is not None and r.due <= now]
        for index in due:
            self._restarts[index].due = None
        return due

    def _seconds_to_wait(self) -> float | None:
        """Return the seconds until the next start or stop is due; None if none is scheduled."""
        due = [restarts.due for restarts in self._restarts if restarts.due is not None]
        due += [] if self._old is None else [self._old_until]
        return max(0.0, min(due) - time.monotonic()) if due else None


def _stop_worker(worker: Any) -> None:
    """Terminate a worker, and kill it if it does not end within the grace time."""
    worker.terminate()

    def wait() -> None:
        worker.join(GRACE_SECONDS)
        if worker.is_alive():
            log.warning("process %s did not end in time and is killed", worker.inner.pid)
            worker.kill()

    threading.Thread(target=wait, name="stop", daemon=True).start()


def _load(factory: str, was_up: Any, parent: int) -> WSGIApplication:
    """Make the application in a new worker; `factory` is `module:function`."""
    # Until Granian sets the worker's handlers, the worker has those of its parent process, which
    # would swallow a signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_exit_after, args=(parent,), name="parent", daemon=True).start()
    granian_deferred.install()
    module, _, name = factory.partition(":")
    try:
        make_application: Callable[[], WSGIApplication]
        make_application = getattr(importlib.import_module(module), name)
        application = make_application()
    except Exception as error:
        is_expected = isinstance(error, PeerLoanError)
        log.error("a worker could not start: %s", error, exc_info=None if is_expected else error)
        sys.exit(1)
    was_up.value = 1
    return application


def _exit_after(parent: int) -> None:
    """End this process once its parent process has ended, because nobody else would stop it."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    log.error("the process that started this worker has ended, so the worker ends")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
