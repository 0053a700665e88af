"""Derive what a service needs to serve a version, and check that the version can be served."""

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
    """The parts that read requests for a version: checks, decoder and JSON schema of loans."""

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
    """Raise BundleError unless a service can serve a version.

    Derives the caller interface, and decides on the golden examples, on the first one with reasons.
    """
    interface = CallerInterface.of(bundle, known)
    with _library_errors(bundle):
        msgspec.json.encode(interface.schema)
        for i, golden in enumerate(bundle.manifest.golden, 1):
            content = msgspec.json.encode(golden.loan)
            checked = interface.decoder.loan(content) or interface.checks.loan(golden.loan)
            for problem in checked.problems:
                raise ValueError(
                    f"golden example {i} would be refused: {problem.field}: expected "
                    f"{problem.expected}, given {problem.given}"
                )
            # Only the first has reasons: those of all examples of an ONNX version take seconds.
            msgspec.json.encode(bundle.decide(checked.values, explain=i == 1))


@contextlib.contextmanager
def _library_errors(bundle: Bundle) -> Iterator[None]:
    """Raise any error as BundleError. Libraries raise many kinds of errors on hostile data."""
    try:
        yield
    except Exception as error:
        raise BundleError(f"{bundle.version}: can't be served: {error}") from error
