"""Training: from a book to a bundle in the store."""

from peerloan.training.candidates import CANDIDATES
from peerloan.training.pipeline import Aim, PublishedCandidate, train
from peerloan.training.recalibration import recalibrate
from peerloan.training.table import Table, TrainingError

__all__ = [
    "CANDIDATES",
    "Aim",
    "PublishedCandidate",
    "Table",
    "TrainingError",
    "recalibrate",
    "train",
]
