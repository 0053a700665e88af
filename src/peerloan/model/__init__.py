"""Models (scorecards and ONNX graphs), the policy that makes decisions of margins, and reasons."""

from peerloan.model.arithmetic import Calibration, probabilities
from peerloan.model.batch_reasons import Cause, Said, said_of
from peerloan.model.encoding import EncodedColumn, Encoding
from peerloan.model.onnx_run import OnnxTimeLimit
from peerloan.model.policy import BANDS, MAX_REASONS, Policy, Reason, Reasons, TradeOff
from peerloan.model.reference_profile import Profile
from peerloan.model.scorecard import LevelTable, NumberTable, Scorecard

__all__ = [
    "BANDS",
    "MAX_REASONS",
    "Calibration",
    "Cause",
    "EncodedColumn",
    "Encoding",
    "LevelTable",
    "NumberTable",
    "OnnxTimeLimit",
    "Policy",
    "Profile",
    "Reason",
    "Reasons",
    "Said",
    "Scorecard",
    "TradeOff",
    "probabilities",
    "said_of",
]
