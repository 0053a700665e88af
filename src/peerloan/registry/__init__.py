"""The model registry: bundles (one model version each), their aliases, and the store of both."""

from peerloan.registry.alias_state import AliasState, BreakingChange, StoreError, StoreFault
from peerloan.registry.batch import Decisions
from peerloan.registry.bundle import ONNX_TOLERANCE, Bundle, Decision
from peerloan.registry.errors import RegistryError
from peerloan.registry.explanations import Explanation
from peerloan.registry.manifest import BundleError, Manifest, Score, TrainedOn
from peerloan.registry.packaging import Draft, OnnxParts, ValidationFigures, draft
from peerloan.registry.servable import Interface
from peerloan.registry.store import Store
from peerloan.registry.time_limits import StoreTimeout, some_call_hangs

__all__ = [
    "ONNX_TOLERANCE",
    "AliasState",
    "BreakingChange",
    "Bundle",
    "BundleError",
    "Decision",
    "Decisions",
    "Draft",
    "Explanation",
    "Interface",
    "Manifest",
    "OnnxParts",
    "RegistryError",
    "Score",
    "Store",
    "StoreError",
    "StoreFault",
    "StoreTimeout",
    "TrainedOn",
    "ValidationFigures",
    "draft",
    "some_call_hangs",
]
