"""Types of the fixtures `run` (a process) and `call` (this process), which run commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """A command's exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """Its output as JSON."""
        output: dict[str, Any] = json.loads(self.out)
        return output


Call = Callable[..., Done]
Run = Callable[..., subprocess.CompletedProcess[str]]
