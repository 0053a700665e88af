"""Serving works without the libraries for books and training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import ROOT
from helpers.stores import VersionOf
from peerloan.ledger import Seal
from peerloan.registry import Store

ABSENT = ("sklearn", "xgboost", "pyarrow", "skl2onnx", "onnx", "scipy", "pandas")
# As if they were not installed: the first import finder refuses them.
BLOCK = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""
ASK = """
import json, pathlib
from peerloan.web import create_app
from peerloan.settings import Settings

client = create_app(Settings(pathlib.Path(sys.argv[1])), on_loopback=True).test_client()
answer = client.post("/v1/predictions", json=json.loads(sys.argv[2]))
print(json.dumps(answer.get_json()))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_a_champion_is_served(
    store: Store, version_of: VersionOf, loan: dict[str, Any], candidate: str
) -> None:
    store.promote(version_of(candidate))
    done = python(BLOCK + ASK, str(store.root), json.dumps(loan))
    assert done.returncode == 0, done.stderr
    # The other line is the log of the request.
    answer = next(line for line in done.stdout.splitlines() if "probability" in line)
    assert json.loads(answer)["model"]["version"] == version_of(candidate)


@pytest.mark.parametrize("command", ["serve", "models", "ledger", "replay", "events"])
def test_the_commands_that_serving_needs_start(command: str) -> None:
    code = f"from peerloan.cli import main; main(['{command}', '--help'])"
    assert python(BLOCK + code).returncode == 0


def test_the_help_names_every_command_and_marks_those_not_installed() -> None:
    done = python(BLOCK + "from peerloan.cli import main; main(['--help'])")
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
    assert "(not installed here" in done.stdout


def test_a_command_for_books_names_the_package_to_install() -> None:
    done = python(BLOCK + "from peerloan.cli import main; main(['check', 'x.csv', '--json'])")
    assert done.returncode == 1
    assert "pip install 'peerloan[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_the_export_of_the_ledger_s_commands_needs_more_libraries(tmp_path: Path) -> None:
    def ledger(*arguments: str) -> subprocess.CompletedProcess[str]:
        setting = f"import os; os.environ['PEERLOAN_STORE'] = {str(tmp_path / 'store')!r}\n"
        call = f"from peerloan.cli import main; main(['ledger', *{arguments!r}])"
        return python(BLOCK + setting + call)

    assert ledger("upgrade").returncode == 0
    Seal(tmp_path / "peerloan-seal")
    for command in (("verify",), ("purge", "--older-than", "7y", "--yes")):
        done = ledger(*command)
        assert done.returncode == 0, done.stderr
    done = ledger("export", "-o", "x.parquet")
    assert done.returncode == 1
    assert done.stderr == "peerloan: this command needs pyarrow: pip install 'peerloan[train]'\n"


def test_the_lock_for_serving_has_none_of_these_libraries() -> None:
    lock = (ROOT / "requirements/serve.txt").read_text("utf-8")
    names = set(re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.M))
    assert names
    assert not names & {"scikit-learn", "xgboost", "xgboost-cpu", "pyarrow", "onnx", "skl2onnx"}


@pytest.mark.parametrize("name", ["build", "clients", "dev", "serve", "train"])
def test_a_lock_is_exact_hashed_and_names_no_index(name: str) -> None:
    lock = (ROOT / f"requirements/{name}.txt").read_text("utf-8")
    assert "://" not in lock
    assert "index" not in lock.replace("importlib", "")
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.M)[1:]
    assert blocks
    for block in blocks:
        assert re.match(r"[A-Za-z0-9_.\[\]-]+==\S+", block), block
        assert "--hash=sha256:" in block, block
