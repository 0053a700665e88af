"""The solver of optimal bins, which would take Ctrl-C for itself.

OR-tools sets a handler of SIGINT in the whole process and does not give it back: during a fit
Ctrl-C would end one search for bins, and after it the process, before anything is cleaned away.
optbinning makes its solver itself and takes no settings for it, so its name is replaced there.
"""

from __future__ import annotations

from typing import Any


def leave_signals_to_python() -> None:
    """Let every solver that optbinning makes from now on leave SIGINT alone.

    Without the private names that this needs, bins are found all the same, and Ctrl-C is the
    solver's.
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
