"""The client's original shape: a data frame from the JSON, and the pipeline's probability."""

from __future__ import annotations

import os

import joblib
import pandas as pd
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
pipeline = joblib.load(os.environ["PIPELINE"])


@app.post("/predict")
def predict() -> Response:
    """One loan's probability."""
    loan = pd.DataFrame([request.get_json()])
    return jsonify(probability=float(pipeline.predict_proba(loan)[0, 1]))


@app.get("/readyz")
def ready() -> Response:
    """It is, once this module is read."""
    return jsonify({})
