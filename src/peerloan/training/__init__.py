"""Training: from a book to a bundle in the store."""

from peerloan.training.candidates import CANDIDATES
from peerloan.training.pipeline import Aim, Outcome, Table, TrainingError, train
from peerloan.training.recalibration import recalibrate

__all__ = ["CANDIDATES", "Aim", "Outcome", "Table", "TrainingError", "recalibrate", "train"]
