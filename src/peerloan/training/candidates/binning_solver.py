"""Stops the solver of optimal bins from handling Ctrl-C itself.

OR-tools sets a handler of SIGINT in the whole process and does not restore the old one. During a
fit Ctrl-C would end one search for bins, and after it the process without a clean-up. optbinning
creates its solver itself and has no setting for it, so the solver's name is replaced in optbinning.
"""

from __future__ import annotations

from typing import Any


def leave_signals_to_python() -> None:
    """Make every solver that optbinning creates from now on leave SIGINT to Python.

    If the private names are missing, binning works, and Ctrl-C goes to the solver.
    """
    try:
        from optbinning.binning import cp

        make = cp.cp_model.CpSolver
    except (ImportError, AttributeError):
        return
    if isinstance(make, type):  # not replaced yet
        cp.cp_model.CpSolver = lambda: _without_signals(make())


def _without_signals(solver: Any) -> Any:
    if hasattr(solver.parameters, "catch_sigint_signal"):
        solver.parameters.catch_sigint_signal = False
    return solver
