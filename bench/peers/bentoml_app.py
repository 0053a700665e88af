"""BentoML with the same pipeline; a loan comes as a table of one row, as BentoML takes tables.

The method is a coroutine, although it computes: with one worker on one core a thread for each
request would only cost throughput. For the same reason there is no line in the log for each.
"""

from __future__ import annotations

import os

import bentoml
import joblib
import pandas as pd


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Loans:
    """The service."""

    def __init__(self) -> None:
        self.pipeline = joblib.load(os.environ["PIPELINE"])

    @bentoml.api
    async def predict(self, loans: pd.DataFrame) -> list[float]:
        """The loans' probabilities."""
        return [float(each) for each in self.pipeline.predict_proba(loans)[:, 1]]
