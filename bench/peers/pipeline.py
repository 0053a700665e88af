"""The client's improved model, which every peer serves: stumps after SMOTE, in one pipeline.

python pipeline.py BOOK LOAN OUT

Trains on a book, stores the pipeline in OUT with joblib, and prints its probability for the loan,
which is given as JSON.
"""

from __future__ import annotations

import json
import sys

import joblib
import pandas as pd
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier


def main(book: str, loan: str, out: str) -> None:
    """Train, store and print."""
    one = pd.DataFrame([json.loads(loan)])
    table = pd.read_csv(book)
    numbers = list(one.select_dtypes("number"))
    levels = [name for name in one if name not in numbers]
    pipeline = make_pipeline(
        make_column_transformer(
            (SimpleImputer(strategy="median"), numbers),
            (OneHotEncoder(handle_unknown="ignore"), levels),
            sparse_threshold=0,
        ),
        StandardScaler(),
        SMOTE(random_state=0),
        # One thread, because it is served on one core.
        XGBClassifier(
            max_depth=1,
            n_estimators=500,
            learning_rate=0.01,
            subsample=0.4,
            random_state=0,
            n_jobs=1,
        ),
    )
    pipeline.fit(table[list(one)], table["is_late"])
    joblib.dump(pipeline, out)
    print(pipeline.predict_proba(one)[0, 1])


if __name__ == "__main__":
    main(*sys.argv[1:])
