"""An ONNX model: probabilities from a graph, and sampled Shapley values for reasons."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.loan import Definition, Loans, Value
from peerloan.model.arithmetic import PlattCalibration, to_unit
from peerloan.model.encoding import Encoding, to_single
from peerloan.model.onnx_graph import OnnxModelError, check_graph
from peerloan.model.onnx_run import run_limited
from peerloan.stats.arrays import Numbers

# Probabilities are clipped to [FLOOR, 1 - FLOOR]: a margin needs 0 < p < 1, and a forest predicts 0
# for many loans. FLOOR is smaller than the error of a converted estimator.
FLOOR = 1e-7
# Limit of the sum of absolute contributions, so that sums stay exact: see `arithmetic`.
_MAX_SPREAD = 2.0**19
# Most rows that the estimator scores for the reasons of one decision. A forest of a hundred
# full-grown trees takes less than 20 ms for them.
_ROWS_A_DECISION = 640


def background_size(fields: int) -> int:
    """Return the number of background loans of a version with this many fields: 4 to 32."""
    return max(4, min(32, _ROWS_A_DECISION // (2 * max(1, fields - 1))))


class OnnxModel:
    """An encoding followed by a numeric estimator in ONNX.

    The graph takes one float32 matrix (n, columns) and returns `probabilities`, (n, 2) or (n,).
    Contributions compare a loan with the `background` loans. `seed` makes their sampling
    reproducible. Raises OnnxModelError or ValueError.
    """

    def __init__(
        self,
        graph: bytes,
        encoding: Encoding,
        definition: Definition,
        background: Loans,
        seed: str,
        calibration: PlattCalibration,
    ) -> None:
        check_graph(graph)
        # Imported only here, because a process without ONNX versions does not need the runtime.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread: workers run in parallel, and the order of sums stays the same.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                # Constant folding computes parts of the graph while loading, where no time limit
                # applies; without it they are computed in each run.
                disabled_optimizers=["ConstantFolding"],
            )
        except Exception as error:  # the runtime's errors have no common base
            raise OnnxModelError(f"model.onnx: the ONNX runtime can't load it: {error}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or "probabilities" not in (output.name for output in outputs):
            raise OnnxModelError("model.onnx: expected one input and an output 'probabilities'")
        self._input = inputs[0].name
        self.runtime: str = onnxruntime.__version__
        encoding.check(definition)
        self._encoding = encoding
        self._row = encoding.row_encoder(definition)
        self._seed = seed
        self._calibration = calibration
        if background.size == 0:
            raise OnnxModelError("background.json: expected at least one loan")
        self._background = to_single(encoding.matrix(background))
        self._background_p = self._run(self._background)
        self._base_p = float(self._background_p.mean())
        self.base = float(self._margins(np.array([self._base_p]))[0])
        self._field_of_column = encoding.field_indexes(definition)
        self._fields = len(definition.fields)

    def margins(self, loans: Loans) -> Numbers:
        """Return the margins (n,) of many loans."""
        return self._margins(self._run(to_single(self._encoding.matrix(loans))))

    def margin(self, values: Sequence[Value]) -> float:
        """Return the margin of one loan, without contributions."""
        return float(self._margins(self._run(to_single(np.array([self._row(values)]))))[0])

    def score(self, values: Sequence[Value]) -> tuple[float, tuple[float, ...]]:
        """Return the margin and contributions of one loan.

        Contributions are Shapley values of the probability, by permutation sampling (Castro,
        Gómez and Tejada 2009) with antithetic pairs: each background loan is changed into this
        loan feature by feature, in a random order and in the reverse order. They are then scaled
        to log-odds by one positive factor, which preserves signs and order. base + contributions
        is exactly the margin.
        """
        encoded = to_single(np.array([self._row(values)]))
        loan_p = float(self._run(encoded)[0])
        margin = float(self._margins(np.array([loan_p]))[0])
        shares = self._shapley(encoded[0], loan_p, self._orders(values))
        difference = loan_p - self._base_p
        mean = (loan_p + self._base_p) / 2
        # If the probability almost equals the base's, use the limit: the slope of the logit.
        slope = (
            (margin - self.base) / difference
            if abs(difference) > 1e-6
            else self._calibration.slope / max(mean * (1 - mean), FLOOR)
        )
        # If the shares almost cancel out, the factor is huge. Limit it so that sums stay exact.
        slope = min(slope, _MAX_SPREAD / max(float(np.abs(shares).sum()), FLOOR))
        contributions = to_unit(shares * slope)
        rest = (margin - self.base) - float(contributions.sum())
        contributions[int(np.argmax(np.abs(contributions)))] += rest
        return margin, tuple(contributions.tolist())

    def _orders(self, values: Sequence[Value]) -> npt.NDArray[np.int64]:
        """Return random orders (background, fields) that depend only on the seed and the loan."""
        # Adding 0 turns −0 into 0, so that both have the same orders.
        normalized = [value + 0.0 if isinstance(value, float) else value for value in values]
        key = f"{self._seed}\n".encode() + msgspec.json.encode(normalized)
        size = len(self._background) * self._fields
        # A hash instead of a random generator: no library version changes its output.
        bits = hashlib.shake_256(key).digest(8 * size)
        draws = np.frombuffer(bits, dtype="<u8").reshape(-1, self._fields)
        return draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")

    def _shapley(
        self, encoded: npt.NDArray[np.float32], probability: float, positions: npt.NDArray[np.int64]
    ) -> Numbers:
        """Return the sampled Shapley values (fields,) of the probability of one encoded loan."""
        fields = self._fields
        orders = np.concatenate([positions, fields - 1 - positions])  # an order and its reverse
        background = np.concatenate([self._background, self._background])
        # After step s the fields at positions below s have this loan's values.
        steps = np.arange(1, fields)
        is_replaced = orders[:, None, self._field_of_column] < steps[None, :, None]
        mixed = np.where(is_replaced, encoded, background[:, None, :])
        walks = np.empty((len(orders), fields + 1))
        walks[:, 0] = np.concatenate([self._background_p, self._background_p])
        walks[:, 1:fields] = self._run(mixed.reshape(-1, mixed.shape[2])).reshape(len(orders), -1)
        walks[:, fields] = probability
        gains = np.diff(walks, axis=1)
        return np.take_along_axis(gains, orders, axis=1).mean(axis=0)  # type: ignore[no-any-return]

    def _margins(self, p: Numbers) -> Numbers:
        p = np.clip(p, FLOOR, 1 - FLOOR)
        return to_unit(self._calibration.apply(np.log(p / (1 - p))))

    def _run(self, encoded: npt.NDArray[np.float32]) -> Numbers:
        if not len(encoded):
            return np.empty(0)
        output: Any = run_limited(
            self._session, ["probabilities"], {self._input: encoded}, len(encoded)
        )[0]
        p = np.asarray(output, dtype=np.float64)
        p = p[:, 1] if p.ndim == 2 and p.shape[1] == 2 else p.reshape(len(encoded))
        if np.isnan(p).any():
            raise OnnxModelError("model.onnx: expected a probability for each loan, given NaN")
        return p
