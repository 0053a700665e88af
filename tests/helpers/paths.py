"""Folders of the repository that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
# A small version of each bundle format, which every later release must replay.
FORMATS = ROOT / "tests/formats"
