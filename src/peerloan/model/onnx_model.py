"""Any other estimator, as ONNX: its probability, and sampled Shapley values for its reasons."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.loan import Definition, Loans, Value
from peerloan.model.arithmetic import Calibration, to_unit
from peerloan.model.encoding import Encoding, to_single
from peerloan.model.onnx_graph import OnnxModelError, check_graph
from peerloan.model.onnx_run import run_limited
from peerloan.stats.arrays import Numbers

# A forest says 0 for many loans; a margin needs a probability inside (0, 1). This is below the
# accuracy to which a converted estimator reproduces the original.
FLOOR = 1e-7
# What the sizes of a decision's contributions may add up to: see `arithmetic`.
_MAX_SPREAD = 2.0**19
# Rows that one decision's reasons may put through the estimator: within 20 ms for a forest of a
# hundred full-grown trees.
_ROWS_A_DECISION = 640


def background_size(fields: int) -> int:
    """How many background loans a version with so many fields carries: 4 to 32."""
    return max(4, min(32, _ROWS_A_DECISION // (2 * max(1, fields - 1))))


class OnnxModel:
    """A numeric estimator in ONNX behind an encoding; a `Model`.

    The graph takes one float32 matrix (n, columns) and gives `probabilities` (n, 2), or (n,).
    `background` are loans against which reasons compare; `seed` ties their sampling to the bundle.
    """

    def __init__(
        self,
        graph: bytes,
        encoding: Encoding,
        definition: Definition,
        background: Loans,
        seed: str,
        calibration: Calibration,
    ) -> None:
        check_graph(graph)
        # Only a bundle that needs the runtime pays for importing it.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread: workers are the unit of parallelism, and sums keep one order.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                # What is computed from weights alone would be computed here, where no time limit
                # can end it, rather than in each run.
                disabled_optimizers=["ConstantFolding"],
            )
        except Exception as error:  # the runtime's errors have no common base
            raise OnnxModelError(f"model.onnx: the runtime refuses it: {error}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or "probabilities" not in (output.name for output in outputs):
            raise OnnxModelError("model.onnx: expected one input, and an output 'probabilities'")
        self._input = inputs[0].name
        self.runtime: str = onnxruntime.__version__
        encoding.check(definition)
        self._encoding = encoding
        self._row = encoding.row_encoder(definition)
        self._seed = seed
        self._calibration = calibration
        if background.size == 0:
            raise OnnxModelError("background.json: no loans")
        self._background = to_single(encoding.matrix(background))
        self._background_p = self._run(self._background)
        self._base_p = float(self._background_p.mean())
        self.base = float(self._margins(np.array([self._base_p]))[0])
        self._field_of_column = encoding.field_indexes(definition)
        self._fields = len(definition.fields)

    def margins(self, loans: Loans) -> Numbers:
        """Margins (n,) of many loans."""
        return self._margins(self._run(to_single(self._encoding.matrix(loans))))

    def margin(self, values: Sequence[Value]) -> float:
        """Margin of one loan, without its reasons."""
        return float(self._margins(self._run(to_single(np.array([self._row(values)]))))[0])

    def score(self, values: Sequence[Value]) -> tuple[float, tuple[float, ...]]:
        """Margin and contributions of one loan.

        Contributions are Shapley values of the probability, by permutation sampling (Castro,
        Gómez and Tejada 2009) with antithetic pairs: each background loan is turned into this
        one feature by feature, in one random order and in its reverse. They are then put on the
        log-odds scale by one positive factor, which keeps signs and order, so that base +
        contributions is the margin exactly.
        """
        encoded = to_single(np.array([self._row(values)]))
        own_p = float(self._run(encoded)[0])
        margin = float(self._margins(np.array([own_p]))[0])
        shares = self._shapley(encoded[0], own_p, self._orders(values))
        moved = own_p - self._base_p
        mean = (own_p + self._base_p) / 2
        # Where the probability is the base's own, the factor's limit: the logit's slope there.
        slope = (
            (margin - self.base) / moved
            if abs(moved) > 1e-6
            else self._calibration.slope / max(mean * (1 - mean), FLOOR)
        )
        # Shares that all but cancel out make a factor beyond which sums would not be exact.
        slope = min(slope, _MAX_SPREAD / max(float(np.abs(shares).sum()), FLOOR))
        contributions = to_unit(shares * slope)
        rest = (margin - self.base) - float(contributions.sum())
        contributions[int(np.argmax(np.abs(contributions)))] += rest
        return margin, tuple(contributions.tolist())

    def _orders(self, values: Sequence[Value]) -> npt.NDArray[np.int64]:
        """Random positions (background, fields), from the bundle's seed and the loan alone."""
        # Adding 0 makes −0 the same as 0.
        same = [value + 0.0 if isinstance(value, float) else value for value in values]
        key = f"{self._seed}\n".encode() + msgspec.json.encode(same)
        size = len(self._background) * self._fields
        # A hash, not a generator: its stream never changes between library versions.
        bits = hashlib.shake_256(key).digest(8 * size)
        draws = np.frombuffer(bits, dtype="<u8").reshape(-1, self._fields)
        return draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")

    def _shapley(
        self, own: npt.NDArray[np.float32], own_p: float, positions: npt.NDArray[np.int64]
    ) -> Numbers:
        fields = self._fields
        both = np.concatenate([positions, fields - 1 - positions])  # an order and its reverse
        background = np.concatenate([self._background, self._background])
        # After step s the fields at positions below s have this loan's values.
        steps = np.arange(1, fields)
        own_here = both[:, None, self._field_of_column] < steps[None, :, None]
        mixed = np.where(own_here, own, background[:, None, :])
        walks = np.empty((len(both), fields + 1))
        walks[:, 0] = np.concatenate([self._background_p, self._background_p])
        walks[:, 1:fields] = self._run(mixed.reshape(-1, mixed.shape[2])).reshape(len(both), -1)
        walks[:, fields] = own_p
        gains = np.diff(walks, axis=1)
        return np.take_along_axis(gains, both, axis=1).mean(axis=0)  # type: ignore[no-any-return]

    def _margins(self, p: Numbers) -> Numbers:
        p = np.clip(p, FLOOR, 1 - FLOOR)
        return to_unit(self._calibration.apply(np.log(p / (1 - p))))

    def _run(self, encoded: npt.NDArray[np.float32]) -> Numbers:
        if not len(encoded):
            return np.empty(0)
        found: Any = run_limited(
            self._session, ["probabilities"], {self._input: encoded}, len(encoded)
        )[0]
        p = np.asarray(found, dtype=np.float64)
        p = p[:, 1] if p.ndim == 2 and p.shape[1] == 2 else p.reshape(len(encoded))
        if np.isnan(p).any():
            raise OnnxModelError("model.onnx: gives no number for a loan")
        return p
