"""Running an ONNX graph for no longer than a limit.

A graph of a few kilobytes can ask for years of matrix products. The runtime ends a run between two
operators once it is told to, so one thread watches over all runs of a process. An operator alone
can't be ended; what a version takes for one loan is limited when it is loaded, too (see `Store`).
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from peerloan.model.onnx_graph import OnnxModelError
from peerloan.threads import start_unsignalled

# A forest of a hundred full-grown trees takes 0.03 ms a loan.
RUN_SECONDS, RUN_SECONDS_A_LOAN = 10.0, 0.0005
_LOOK_SECONDS = 0.25
_CLOSE_SECONDS = 5.0


class OnnxTimeLimit(OnnxModelError):
    """A run that was ended because it took too long."""


class _Watch:
    """Ends runs whose time is over. A lock is taken only to start the thread."""

    def __init__(self) -> None:
        self._runs: dict[int, tuple[float, Any]] = {}
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._some = threading.Event()
        self._is_closing = False

    def begin(self, options: Any, seconds: float) -> None:
        """Have a run with these options ended after so many seconds."""
        self._runs[id(options)] = (time.monotonic() + seconds, options)
        options.terminate = self._is_closing
        if not self._some.is_set():
            self._some.set()
        # Threads do not survive a fork.
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(
                        target=self._look, name="onnx-limit", daemon=True
                    )
                    start_unsignalled(self._thread)

    def end(self, options: Any) -> None:
        """Watch this run no more."""
        del self._runs[id(options)]

    def close(self) -> None:
        """End every run, so that no thread is inside of the runtime when the process ends: the
        runtime would abort it.
        """
        self._is_closing = True
        for _, options in list(self._runs.values()):
            options.terminate = True
        until = time.monotonic() + _CLOSE_SECONDS
        while self._runs and time.monotonic() < until:
            time.sleep(0.01)

    def _look(self) -> None:
        while self._some.wait():
            self._some.clear()
            while self._runs:
                now = time.monotonic()
                for until, options in list(self._runs.values()):
                    if until <= now:
                        options.terminate = True
                time.sleep(_LOOK_SECONDS)


_watch = _Watch()
atexit.register(_watch.close)


def run_limited(
    session: Any, outputs: Sequence[str], inputs: Mapping[str, Any], loans: int
) -> list[Any]:
    """The outputs of a session's graph for so many loans; raises OnnxTimeLimit if that takes longer
    than RUN_SECONDS and RUN_SECONDS_A_LOAN for each.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    seconds = RUN_SECONDS + RUN_SECONDS_A_LOAN * loans
    _watch.begin(options, seconds)
    try:
        return session.run(outputs, inputs, options)  # type: ignore[no-any-return]
    except Exception as error:
        if not options.terminate:
            raise
        raise OnnxTimeLimit(
            f"model.onnx: took longer than {seconds:.3g} s for "
            f"{'one loan' if loans == 1 else f'{loans:,} loans'}, and was ended"
        ) from error
    finally:
        _watch.end(options)
