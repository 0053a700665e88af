"""Save the pipeline as an MLflow model: python mlflow_model.py PIPELINE FOLDER."""

from __future__ import annotations

import sys

import joblib
import mlflow.sklearn

mlflow.sklearn.save_model(
    joblib.load(sys.argv[1]),
    sys.argv[2],
    pyfunc_predict_fn="predict_proba",
    serialization_format="cloudpickle",  # the default refuses imbalanced-learn and XGBoost
)
