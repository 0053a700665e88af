"""FastAPI with a typed loan and the same pipeline.

The view is a coroutine, although it only computes: with one worker on one core, a thread for each
request would reduce throughput.
"""

from __future__ import annotations

import os

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
pipeline = joblib.load(os.environ["PIPELINE"])


class Loan(BaseModel):
    """The request."""

    loan_amnt: float
    int_rate: float
    purpose: str
    grade: str
    annual_inc: float
    revol_util: float | None
    emp_length: str | None
    dti: float
    delinq_2yrs: int
    home_ownership: str


class Answer(BaseModel):
    """The answer."""

    probability: float


@app.post("/predict")
async def predict(loan: Loan) -> Answer:
    """Return one loan's probability."""
    frame = pd.DataFrame([loan.model_dump()])
    return Answer(probability=pipeline.predict_proba(frame)[0, 1])


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Answer that the server is ready, which it is once this module is loaded."""
    return {}
