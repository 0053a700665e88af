"""What a service derives from a version before it serves it, and the check that this works."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from peerloan.loan import Checks, Decoder, json_schema
from peerloan.registry.bundle import Bundle
from peerloan.registry.manifest import BundleError


@dataclass(frozen=True)
class CallerInterface:
    """How requests for a version are read: the checks of loans, their decoder and JSON schema."""

    checks: Checks
    decoder: Decoder
    schema: dict[str, Any]

    @classmethod
    def of(cls, bundle: Bundle, known: Iterable[str] = ()) -> CallerInterface:
        """Derive the interface of a version. Raises BundleError.

        `known` are fields of other versions, which are accepted and ignored.
        """
        with _library_errors(bundle):
            checks = Checks(bundle.definition, known)
            return cls(checks, Decoder(checks), json_schema(bundle.definition, checks.known))


def check_servable(bundle: Bundle, known: Iterable[str] = ()) -> None:
    """Derive all that a service needs, and decide on the golden examples. Raises BundleError.

    The first example is decided on with reasons.
    """
    interface = CallerInterface.of(bundle, known)
    with _library_errors(bundle):
        msgspec.json.encode(interface.schema)
        for i, golden in enumerate(bundle.manifest.golden, 1):
            content = msgspec.json.encode(golden.loan)
            checked = interface.decoder.loan(content) or interface.checks.loan(golden.loan)
            for problem in checked.problems:
                expected = f"{problem.field}: expected {problem.expected}, given {problem.given}"
                raise ValueError(f"golden example {i} would be refused: {expected}")
            # Reasons for all examples of an ONNX version would take seconds.
            msgspec.json.encode(bundle.decide(checked.values, explain=i == 1))


@contextlib.contextmanager
def _library_errors(bundle: Bundle) -> Iterator[None]:
    """Raise any error of a library about foreign data as BundleError."""
    try:
        yield
    except Exception as error:
        raise BundleError(f"{bundle.version}: can't be served: {error}") from error
