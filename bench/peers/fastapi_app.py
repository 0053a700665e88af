"""FastAPI with a typed loan and the same pipeline.

The view is a coroutine, although it computes: with one worker on one core a thread for each request
would only cost throughput.
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
    """What is asked."""

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
    """What is answered."""

    probability: float


@app.post("/predict")
async def predict(loan: Loan) -> Answer:
    """One loan's probability."""
    frame = pd.DataFrame([loan.model_dump()])
    return Answer(probability=pipeline.predict_proba(frame)[0, 1])


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """It is, once this module is read."""
    return {}
