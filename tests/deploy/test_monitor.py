"""The monitor as a service: its metrics, and the takeover by a second one."""

from __future__ import annotations

import subprocess
from typing import Any

from deploy.deployment import Deployment, inspect, sh, wait_for


def log(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    return done.stderr


def metrics(container: str) -> dict[str, str]:
    """The metrics that Prometheus scrapes, by name and labels."""
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    lines = sh("docker", "exec", container, "python", "-c", code).splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))


def test_one_monitor_watches_and_another_takes_over_from_it(
    serving: Deployment, loan: dict[str, Any]
) -> None:
    assert serving.post("/v1/predictions", json=[loan] * 20).ok
    (first,) = serving.containers("ms_monitor")
    # So that the next round is due at once, and not in an hour.
    serving.sql("UPDATE watchers SET judged_ms = judged_ms - 4000000")
    wait_for("a round", lambda: "counted " in log(first).split("INFO monitoring")[-1], 60)
    wait_for("a round of these", lambda: f"{serving.serving()}: " in log(first), 60)
    leading = metrics(first)
    assert leading["peerloan_monitor_leader"] == "1.0"
    assert leading["peerloan_monitor_ledger_available"] == "1.0"
    assert float(leading["peerloan_monitor_decisions_total"]) >= 20

    serving.compose(
        "up", "-d", "--no-recreate", "--no-deps", "--scale", "ms_monitor=2", "ms_monitor"
    )
    (second,) = set(serving.containers("ms_monitor")) - {first}
    wait_for("the other", lambda: "monitors; standing by" in log(second), 60)
    standing_by = metrics(second)
    assert standing_by["peerloan_monitor_leader"] == "0.0"
    same = {name for name in leading if name.startswith("peerloan_drift_psi")}
    assert same
    assert {standing_by[name] for name in same} <= {leading[name] for name in same}

    sh("docker", "stop", "--time", "10", first)
    assert inspect(first)["State"]["ExitCode"] == 128 + 15, (
        "it heard the signal, and was not killed"
    )
    wait_for("it takes over", lambda: log(second).rstrip().endswith("INFO monitoring"), 10)
    sh("docker", "rm", first)
    serving.compose("up", "-d", "--no-recreate", "--no-deps", "ms_monitor")
