"""Sizes of tests: small by default, full in `make verify`."""

from __future__ import annotations

import os

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "ci-long"
# Examples of schemathesis per operation.
API_EXAMPLES = 300 if FULL else 30
# Seconds of load before and after a fault.
STEADY_SECONDS = 10.0 if FULL else 1.0
# A factor of the number of simulated windows without drift.
WINDOWS = 10 if FULL else 1
