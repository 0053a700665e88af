"""BentoML with the same pipeline. A loan is a table of one row.

The method is a coroutine, although it only computes: with one worker on one core, a thread for each
request would reduce throughput. For the same reason there is no request log.
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
        """Return the loans' probabilities."""
        return [float(each) for each in self.pipeline.predict_proba(loans)[:, 1]]
