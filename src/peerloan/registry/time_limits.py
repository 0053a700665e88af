"""Time limits for calls on a store.

A read of a stalled network file system never returns, and Python can't end a thread. So the call
runs in a separate thread, and the caller waits for it with a time limit. Ctrl-C works while it
waits. A thread that hangs is abandoned. While it hangs, the same call fails at once, without
another thread.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from peerloan.registry.alias_state import StoreFault
from peerloan.threads import start_unsignalled

# Enough to read half of a version's maximal size over a network at 10 MB/s.
CALL_SECONDS = 60.0
# Longer, because the result of a long training must not be lost to a slow disk.
PUBLISH_SECONDS = 300.0
# After an interrupt: time to complete or remove files that are partly written.
_GRACE_SECONDS = 2.0


class StoreTimeout(StoreFault):
    """A call exceeded its time limit; `reason` is the message without the path of the store."""

    def __init__(self, root: Path, reason: str) -> None:
        super().__init__(f"{root}: {reason}")
        self.reason = reason


class _Call(threading.Thread):
    """A call in its own thread, and its result."""

    def __init__(self, what: str, function: Callable[[], Any]) -> None:
        super().__init__(name=what, daemon=True)
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Run the call in the thread."""
        _thread_state.is_limited = True
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        self.done.set()

    def result(self) -> Any:
        """Return the result of the call, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._result


# Whether the current thread runs a call with a time limit.
_thread_state = threading.local()


class Calls:
    """Runs the calls on a store with a time limit, and remembers those that hang. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._hung: dict[Hashable, _Call] = {}

    def within(
        self, seconds: float, what: str, function: Callable[[], Any], grace_seconds: float = 0.0
    ) -> Any:
        """Return the result of a function. Raises StoreTimeout if it takes longer than `seconds`.

        `what` names the call. If a call of the same name still hangs, StoreTimeout is raised at
        once. After an interrupt (KeyboardInterrupt, for example), the function has up to
        `grace_seconds` to end.
        """
        if getattr(
            _thread_state, "is_limited", False
        ):  # part of a call that already has a time limit
            return function()
        earlier = self._hung.get(what)
        if earlier is None or earlier.done.is_set():
            call = _Call(what, function)
            try:
                start_unsignalled(call)
            except RuntimeError:  # no more threads are available, or the process is ending
                return function()
            try:
                is_done = call.done.wait(seconds)
            except BaseException:
                call.done.wait(grace_seconds)
                raise
            if is_done:
                self._hung.pop(what, None)
                return call.result()
            self._hung[what] = call
        raise StoreTimeout(
            self._root,
            f"{what} did not end within {seconds:g} seconds: the file system may hang, or the "
            "version may take too long",
        )


def some_call_hangs() -> bool:
    """Whether an abandoned call still runs in this process."""
    return any(isinstance(thread, _Call) for thread in threading.enumerate())


class _Store(Protocol):
    calls: Calls


_S = TypeVar("_S", bound=_Store)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Method = Callable[Concatenate[_S, _P], _R]


def limited(
    doing: str, *, is_writing: bool = False, is_long: bool = False
) -> Callable[[_Method[_S, _P, _R]], _Method[_S, _P, _R]]:
    """Decorate a method of the store so that it raises StoreTimeout after CALL_SECONDS.

    With `is_long`, the limit is PUBLISH_SECONDS. With `is_writing`, an interrupted call has some
    time to complete or remove its files. `doing` is the verb of the message; the method's first
    argument follows it.
    """

    def decorate(method: _Method[_S, _P, _R]) -> _Method[_S, _P, _R]:
        @functools.wraps(method)
        def call(store: _S, /, *args: _P.args, **options: _P.kwargs) -> _R:
            subject = [str(argument) for argument in args[:1] if isinstance(argument, str | int)]
            result: _R = store.calls.within(
                PUBLISH_SECONDS if is_long else CALL_SECONDS,
                " ".join([doing, *subject]),
                functools.partial(method, store, *args, **options),
                _GRACE_SECONDS if is_writing else 0.0,
            )
            return result

        return call

    return decorate
