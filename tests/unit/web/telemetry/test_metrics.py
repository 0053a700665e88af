"""Figures of the web process."""

from __future__ import annotations

import pytest

from peerloan.web.telemetry import metrics

VALUES = [0.0004, 0.002, 0.002, 0.3, 70.0]


@pytest.mark.parametrize("missing", [None, "_sum", "_upper_bounds", "_buckets"])
def test_many_values_at_once_count_as_one_by_one(
    monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    """Also where Prometheus's library has not the private names for many at once."""
    together, apart = (
        metrics.BatchHistogram(name, "seconds", registry=None) for name in ("a", "b")
    )
    for value in VALUES:
        apart.observe(value)
    if missing is None:
        together.observe_all(VALUES)
    else:
        # The release that lacks a name has an `observe` that needs none.
        seen: list[float] = []
        monkeypatch.setattr(together, "observe", seen.append)
        with monkeypatch.context() as without:
            without.delattr(together, missing)
            together.observe_all(VALUES)
        assert seen == VALUES
        monkeypatch.undo()
        for value in seen:
            together.observe(value)

    def samples(histogram: metrics.BatchHistogram) -> list[tuple[object, float]]:
        [family] = histogram.collect()
        return [
            (each.labels, each.value)
            for each in family.samples
            if not each.name.endswith("_created")
        ]

    assert samples(together) == samples(apart)
