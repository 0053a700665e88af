"""Training: from a book to a bundle in the store."""

from peerloan.training.candidates import CANDIDATES
from peerloan.training.recalibration import recalibrate
from peerloan.training.run import Aim, Outcome, Table, TrainingError, train

__all__ = ["CANDIDATES", "Aim", "Outcome", "Table", "TrainingError", "recalibrate", "train"]
