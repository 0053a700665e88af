"""How much a test tries: a little in the daily runs, all of it in `make verify`."""

from __future__ import annotations

import os

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "ci-long"
# For schemathesis, of each operation.
API_EXAMPLES = 300 if FULL else 30
# How long a load goes on before a fault and after it.
STEADY_SECONDS = 10.0 if FULL else 1.0
# Calm windows that are simulated, for each one of the daily runs.
WINDOWS = 10 if FULL else 1
