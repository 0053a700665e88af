"""Run an ONNX graph with a time limit.

A graph of a few kilobytes can compute matrix products for years. The ONNX runtime can terminate a
run between two operators. One thread per process watches the deadlines of all runs and requests the
termination. A single operator can't be interrupted. That is why loading a version, which scores a
few loans, also has a time limit (see `time_limits` of the registry).
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from peerloan.formatting import plural
from peerloan.model.onnx_graph import OnnxModelError
from peerloan.threads import start_unsignalled

# For comparison: a forest of a hundred full-grown trees takes 0.03 ms for one loan.
RUN_SECONDS, RUN_SECONDS_A_LOAN = 10.0, 0.0005
_CHECK_SECONDS = 0.25
_CLOSE_SECONDS = 5.0


class OnnxTimeLimit(OnnxModelError):
    """A run exceeded its time limit and was terminated."""


class _Watch:
    """Terminates runs after their deadline. Thread-safe; it locks only to start its thread."""

    def __init__(self) -> None:
        self._runs: dict[int, tuple[float, Any]] = {}
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._has_runs = threading.Event()
        self._is_closing = False

    def begin(self, options: Any, seconds: float) -> None:
        """Terminate the run with these options after this many seconds."""
        self._runs[id(options)] = (time.monotonic() + seconds, options)
        options.terminate = self._is_closing
        if not self._has_runs.is_set():
            self._has_runs.set()
        # A forked process has no copy of the thread.
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(
                        target=self._watch_runs, name="onnx-limit", daemon=True
                    )
                    start_unsignalled(self._thread)

    def end(self, options: Any) -> None:
        """Stop watching a run."""
        del self._runs[id(options)]

    def close(self) -> None:
        """Terminate all runs and wait for them.

        The runtime aborts a process that exits while a thread is inside it.
        """
        self._is_closing = True
        for _, options in list(self._runs.values()):
            options.terminate = True
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._runs and time.monotonic() < deadline:
            time.sleep(0.01)

    def _watch_runs(self) -> None:
        while self._has_runs.wait():
            self._has_runs.clear()
            while self._runs:
                now_seconds = time.monotonic()
                for deadline, options in list(self._runs.values()):
                    if deadline <= now_seconds:
                        options.terminate = True
                time.sleep(_CHECK_SECONDS)


_watch = _Watch()
atexit.register(_watch.close)


def run_limited(
    session: Any, outputs: Sequence[str], inputs: Mapping[str, Any], loans: int
) -> list[Any]:
    """Run a session and return its outputs.

    Raises OnnxTimeLimit if that takes longer than RUN_SECONDS plus RUN_SECONDS_A_LOAN for each of
    the `loans`.
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
            f"{plural(loans, 'loan')}, and was terminated"
        ) from error
    finally:
        _watch.end(options)
