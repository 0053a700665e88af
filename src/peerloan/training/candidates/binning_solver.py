"""Prevents the solver of optimal bins from handling Ctrl-C.

OR-tools sets a handler of SIGINT for the process and does not restore the old one. During a fit,
Ctrl-C would end one search for bins; after a fit, it would end the process without a clean-up.
optbinning creates its solver itself and has no setting for this, so the name of the solver's class
is replaced in optbinning.
"""

from __future__ import annotations

from typing import Any


def leave_signals_to_python() -> None:
    """Make all solvers that optbinning creates from now on leave SIGINT to Python.

    If another release of optbinning lacks the private names, binning still works, and the solver
    handles Ctrl-C.
    """
    try:
        from optbinning.binning import cp

        create = cp.cp_model.CpSolver
    except (ImportError, AttributeError):
        return
    if isinstance(create, type):  # not replaced yet
        cp.cp_model.CpSolver = lambda: _without_signals(create())


def _without_signals(solver: Any) -> Any:
    if hasattr(solver.parameters, "catch_sigint_signal"):
        solver.parameters.catch_sigint_signal = False
    return solver
