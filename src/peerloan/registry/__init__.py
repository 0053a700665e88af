"""The model registry: bundles (a bundle is a model version), aliases, and the store of both."""

from peerloan.registry.alias_state import AliasState, BreakingChange, StoreError, StoreFault
from peerloan.registry.batch import Decisions
from peerloan.registry.bundle import ONNX_TOLERANCE, Bundle, Decision
from peerloan.registry.change_reasons import ChangeReason
from peerloan.registry.errors import RegistryError
from peerloan.registry.manifest import BundleError, CandidateScore, Manifest, TrainedOn
from peerloan.registry.packaging import Draft, OnnxParts, ValidationFigures, draft
from peerloan.registry.serving_check import CallerInterface
from peerloan.registry.store import Store
from peerloan.registry.time_limits import StoreTimeout, some_call_hangs

__all__ = [
    "ONNX_TOLERANCE",
    "AliasState",
    "BreakingChange",
    "Bundle",
    "BundleError",
    "CallerInterface",
    "CandidateScore",
    "ChangeReason",
    "Decision",
    "Decisions",
    "Draft",
    "Manifest",
    "OnnxParts",
    "RegistryError",
    "Store",
    "StoreError",
    "StoreFault",
    "StoreTimeout",
    "TrainedOn",
    "ValidationFigures",
    "draft",
    "some_call_hangs",
]
