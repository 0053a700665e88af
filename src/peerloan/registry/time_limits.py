"""Calls on a store that are given up after a time limit.

A read of a network file system that has stalled never returns, and a thread can't be ended. So the
call runs in a thread of its own, and who called waits only so long; Ctrl-C works meanwhile. A
thread that hangs is left alone, and no second one is started for the same call until it has ended.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from peerloan.registry.alias_state import StoreFault
from peerloan.threads import start_unsignalled

# Half of what a version may hold comes over a network of 10 MB a second in that time.
CALL_SECONDS = 60.0
# A long training must not be lost to a slow disk.
PUBLISH_SECONDS = 300.0
# Until what is half-written is whole, or cleaned away, once somebody wants to stop.
_GRACE_SECONDS = 2.0


class StoreTimeout(StoreFault):
    """A call that was given up; `reason` says which, without where the store stands."""

    def __init__(self, root: Path, reason: str) -> None:
        super().__init__(f"{root}: {reason}")
        self.reason = reason


class _Call(threading.Thread):
    """A call in a thread of its own, and what came of it."""

    def __init__(self, what: str, function: Callable[[], Any]) -> None:
        super().__init__(name=what, daemon=True)
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Call, in the thread."""
        _here.is_limited = True
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        self.done.set()

    def result(self) -> Any:
        """What the call returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result


# Whether this thread runs a call that somebody waits for only so long.
_here = threading.local()


class Calls:
    """The calls on one store, of which those are known that hang. Any thread may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._hung: dict[Hashable, _Call] = {}

    def within(
        self, seconds: float, what: str, function: Callable[[], Any], grace_seconds: float = 0.0
    ) -> Any:
        """What a function returns; raises StoreTimeout if it takes longer, or if a call of this
        name still hangs. If interrupted, it may take the grace to end.
        """
        if getattr(_here, "is_limited", False):  # a part of a call that is limited as a whole
            return function()
        earlier = self._hung.get(what)
        if earlier is None or earlier.done.is_set():
            call = _Call(what, function)
            try:
                start_unsignalled(call)
            except RuntimeError:  # there is no more room for threads, or the process ends
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
            "version take too long",
        )


def some_call_hangs() -> bool:
    """Whether a call that was given up is still under way in this process."""
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
    """Let a store's method raise StoreTimeout when it takes longer than CALL_SECONDS, or
    PUBLISH_SECONDS if it `is_long`; `doing` says what it does to its first argument.
    """

    def decorate(method: _Method[_S, _P, _R]) -> _Method[_S, _P, _R]:
        @functools.wraps(method)
        def call(store: _S, /, *args: _P.args, **options: _P.kwargs) -> _R:
            subject = [str(each) for each in args[:1] if isinstance(each, str | int)]
            result: _R = store.calls.within(
                PUBLISH_SECONDS if is_long else CALL_SECONDS,
                " ".join([doing, *subject]),
                functools.partial(method, store, *args, **options),
                _GRACE_SECONDS if is_writing else 0.0,
            )
            return result

        return call

    return decorate
