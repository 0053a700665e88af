"""What a service makes of a version before it can serve it, and the proof that it can be made."""

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
class Interface:
    """How callers meet a version: the checks of their loans, their reader, and their schema."""

    checks: Checks
    decoder: Decoder
    schema: dict[str, Any]

    @classmethod
    def of(cls, bundle: Bundle, known: Iterable[str] = ()) -> Interface:
        """That of a version; `known` are other versions' fields, accepted and ignored. Raises
        BundleError.
        """
        with _servable(bundle):
            checks = Checks(bundle.definition, known)
            return cls(checks, Decoder(checks), json_schema(bundle.definition, checks.known))


def prove_servable(bundle: Bundle, known: Iterable[str] = ()) -> None:
    """Make all that a service makes of a version, and answer its golden examples by it, the first
    one with reasons; raises BundleError.
    """
    interface = Interface.of(bundle, known)
    with _servable(bundle):
        msgspec.json.encode(interface.schema)
        for i, golden in enumerate(bundle.manifest.golden, 1):
            content = msgspec.json.encode(golden.loan)
            checked = interface.decoder.loan(content) or interface.checks.loan(golden.loan)
            for problem in checked.problems:
                expected = f"{problem.field}: expected {problem.expected}, given {problem.given}"
                raise ValueError(f"golden example {i} would be refused: {expected}")
            # Of all of them, those of an ONNX version would take seconds.
            msgspec.json.encode(bundle.decide(checked.values, explain=i == 1))


@contextlib.contextmanager
def _servable(bundle: Bundle) -> Iterator[None]:
    """Whatever a library says of foreign data, as the bundle's own error."""
    try:
        yield
    except Exception as error:
        raise BundleError(f"{bundle.version}: can't be served: {error}") from error
