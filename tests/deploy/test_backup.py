"""The guide's backup of the ledger, and its restoration on another host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deploy.deployment import ROOT, Deployment, copy_checkout, sh

SECRET = "secrets/ledger_password"


def commands(section: str) -> list[str]:
    """The command blocks of a section of the guide."""
    text = (ROOT / "docs/deploy.md").read_text("utf-8").split(f"\n## {section}\n")[1]
    return re.findall(r"```sh\n(.*?)```", text.split("\n## ")[0], re.S)


def test_the_guide_s_backup_is_restored_on_another_host(
    serving: Deployment, tmp_path: Path, loan: dict[str, Any]
) -> None:
    answer = serving.post("/v1/predictions", json=loan).json()
    backup, restore = commands("The ledger's backup")
    sh("sh", "-ec", backup, env=serving.settings, cwd=serving.folder)
    other = Deployment(copy_checkout(tmp_path / "peerloan"), "peerloan-test-restored")
    for name in ("seal.tar", "ledger.dump"):
        (serving.folder / name).rename(other.folder / name)
    try:
        *steps, start = restore.strip().splitlines()
        assert start == "docker-compose up -d"
        sh("sh", "-ec", "\n".join(steps), env=other.settings, cwd=other.folder)
        code, output = other.run("ledger_upgrade")
        assert (code, "nothing to do" in output) == (0, True)
        assert other.sql(f"SELECT id FROM decisions WHERE id = '{answer['id']}'") == [answer["id"]]
        key = ("run", "--rm", "-T", "--no-deps", "--entrypoint", "sha256sum", "ms_model")
        assert other.compose(*key, "/seal/key") == serving.compose(*key, "/seal/key")
        # And there it gets another password.
        before = other.secret("ledger")
        steps = commands("The secrets")[0].splitlines()
        update = steps.index("sh deploy/update.sh")
        sh("sh", "-ec", "\n".join(steps[:update]), env=other.settings, cwd=other.folder)
        after = other.secret("ledger")
        assert after != before
        assert (other.folder / SECRET).read_text("utf-8").strip() == after.strip()
        assert other.run("ledger_upgrade")[0] == 0
        (other.folder / SECRET).write_text(before, "utf-8")
        assert other.run("setup", "take", "ledger_password")[0] == 0
        code, output = other.run("ledger_upgrade")
        assert (code, "password authentication failed" in output) == (1, True)
    finally:
        other.compose("down", "--volumes")
