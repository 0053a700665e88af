"""Training: from a book to a bundle in the store."""

from peerloan.training.candidates import CANDIDATES
from peerloan.training.run import Outcome, TrainingError, train

__all__ = ["CANDIDATES", "Outcome", "TrainingError", "train"]
