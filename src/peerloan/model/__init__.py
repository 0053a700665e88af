"""What is deployed: scorecards and ONNX models, policy, bundles and the store."""

from peerloan.model.arithmetic import Calibration, probabilities
from peerloan.model.bundle import ONNX_TOLERANCE, Bundle, Decision
from peerloan.model.drafting import Draft, Judged, OnnxParts, draft
from peerloan.model.encoding import EncodedColumn, Encoding
from peerloan.model.explanations import Explanation
from peerloan.model.interface import Interface
from peerloan.model.manifest import BundleError, Manifest, Score, TrainedOn
from peerloan.model.onnx_run import OnnxTimeLimit
from peerloan.model.policy import BANDS, MAX_REASONS, Policy, Reason, Reasons, TradeOff
from peerloan.model.profile import Profile
from peerloan.model.said import Cause, Said, said_of
from peerloan.model.scorecard import LevelTable, NumberTable, Scorecard
from peerloan.model.states import BreakingChange, State, StoreError, StoreFault
from peerloan.model.store import Store
from peerloan.model.time_limits import StoreTimeout, some_call_hangs, start_unsignalled

__all__ = [
    "BANDS",
    "MAX_REASONS",
    "ONNX_TOLERANCE",
    "BreakingChange",
    "Bundle",
    "BundleError",
    "Calibration",
    "Cause",
    "Decision",
    "Draft",
    "EncodedColumn",
    "Encoding",
    "Explanation",
    "Interface",
    "Judged",
    "LevelTable",
    "Manifest",
    "NumberTable",
    "OnnxParts",
    "OnnxTimeLimit",
    "Policy",
    "Profile",
    "Reason",
    "Reasons",
    "Said",
    "Score",
    "Scorecard",
    "State",
    "Store",
    "StoreError",
    "StoreFault",
    "StoreTimeout",
    "TradeOff",
    "TrainedOn",
    "draft",
    "probabilities",
    "said_of",
    "some_call_hangs",
    "start_unsignalled",
]
