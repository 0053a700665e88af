"""Training: from a book to a bundle in the store."""

from peerloan.training.candidates import CANDIDATES
from peerloan.training.recalibration import recalibrate
from peerloan.training.run import Aim, Outcome, TrainingError, train

__all__ = ["CANDIDATES", "Aim", "Outcome", "TrainingError", "recalibrate", "train"]
