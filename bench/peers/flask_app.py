"""The client's original service: a data frame from the JSON, and the pipeline's probability."""

from __future__ import annotations

import os

import joblib
import pandas as pd
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
pipeline = joblib.load(os.environ["PIPELINE"])


@app.post("/predict")
def predict() -> Response:
    """Return one loan's probability."""
    loan = pd.DataFrame([request.get_json()])
    return jsonify(probability=float(pipeline.predict_proba(loan)[0, 1]))


@app.get("/readyz")
def ready() -> Response:
    """Answer that the server is ready, which it is once this module is loaded."""
    return jsonify({})
