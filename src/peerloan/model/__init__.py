"""What is deployed: scorecards and ONNX models, policy, bundles and the store."""

from peerloan.model.arithmetic import probabilities
from peerloan.model.bundle import (
    Bundle,
    BundleError,
    Decision,
    Draft,
    Manifest,
    OnnxParts,
    TrainedOn,
    draft,
)
from peerloan.model.encoding import EncodedColumn, Encoding
from peerloan.model.policy import BANDS, MAX_REASONS, Policy, Reason, Reasons
from peerloan.model.profile import Profile
from peerloan.model.scorecard import LevelTable, NumberTable, Scorecard
from peerloan.model.store import BreakingChange, State, Store, StoreError

__all__ = [
    "BANDS",
    "MAX_REASONS",
    "BreakingChange",
    "Bundle",
    "BundleError",
    "Decision",
    "Draft",
    "EncodedColumn",
    "Encoding",
    "LevelTable",
    "Manifest",
    "NumberTable",
    "OnnxParts",
    "Policy",
    "Profile",
    "Reason",
    "Reasons",
    "Scorecard",
    "State",
    "Store",
    "StoreError",
    "TrainedOn",
    "draft",
    "probabilities",
]
