"""Models (scorecards and ONNX graphs), the policy that makes their decisions, and reasons."""

from peerloan.model.arithmetic import PlattCalibration, probabilities
from peerloan.model.encoding import EncodedColumn, Encoding
from peerloan.model.flips import Flip, find_flips
from peerloan.model.onnx_run import OnnxTimeLimit
from peerloan.model.policy import BANDS, OperatingPoint, Policy
from peerloan.model.reasons import MAX_REASONS, BatchReasons, Reason, ReasonKey, Reasons
from peerloan.model.reference_profile import ReferenceProfile
from peerloan.model.scorecard import LevelTable, NumberTable, Scorecard

__all__ = [
    "BANDS",
    "MAX_REASONS",
    "BatchReasons",
    "EncodedColumn",
    "Encoding",
    "Flip",
    "LevelTable",
    "NumberTable",
    "OnnxTimeLimit",
    "OperatingPoint",
    "PlattCalibration",
    "Policy",
    "Reason",
    "ReasonKey",
    "Reasons",
    "ReferenceProfile",
    "Scorecard",
    "find_flips",
    "probabilities",
]
