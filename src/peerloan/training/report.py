"""The training report: one self-contained page that a credit-risk team could sign."""

from __future__ import annotations

from peerloan.training.study import Study


def training_report(study: Study) -> str:
    """The report as HTML."""
    raise NotImplementedError(study)
