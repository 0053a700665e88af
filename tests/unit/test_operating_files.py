"""The alert rules, the dashboard, the default rules and the compose file are valid and complete."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import generate_latest

from helpers.paths import ROOT
from helpers.programs import require
from peerloan.database import Database
from peerloan.database.tables import alarms, figures, versions, watchers
from peerloan.monitoring.alerts.rules import Rules
from peerloan.monitoring.config import Channels, MonitoringConfig, read_config
from peerloan.web.telemetry import metrics as application
from peerloan.worker.prometheus import Metrics

PROMETHEUS = ROOT / "deploy/prometheus"
ALERTS = (PROMETHEUS / "alerts.yml").read_text("utf-8")
DASHBOARD = (ROOT / "deploy/grafana/peerloan.json").read_text("utf-8")
MONITORING = (ROOT / "docs/monitoring.md").read_text("utf-8")

# The docs' shell commands, and the files that they write in the current folder.
SHELL = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
WRITES = re.compile(r"(?<![0-9&<>=-])>{1,2}\s*(?!/dev/|/tmp/|&)([\w./-]+)")

TEXT = {"type": "string", "minLength": 1}
RULES_SCHEMA = {
    "type": "object",
    "required": ["groups"],
    "additionalProperties": False,
    "properties": {
        "groups": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "rules"],
                "additionalProperties": False,
                "properties": {
                    "name": TEXT,
                    "rules": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["alert", "expr", "labels", "annotations"],
                            "additionalProperties": False,
                            "properties": {
                                "alert": {"pattern": "^PeerLoan[A-Za-z]+$"},
                                "expr": TEXT,
                                "for": {"pattern": "^[0-9]+[smhd]$"},
                                "labels": {
                                    "required": ["severity"],
                                    "properties": {"severity": {"enum": ["page", "ticket"]}},
                                },
                                "annotations": {
                                    "required": ["summary", "description"],
                                    "additionalProperties": TEXT,
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
DATASOURCE = {
    "type": "object",
    "required": ["type", "uid"],
    "properties": {"type": {"const": "prometheus"}, "uid": {"const": "${datasource}"}},
}
PLACE = {"type": "integer", "minimum": 0, "maximum": 24}
DASHBOARD_SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": TEXT,
        "title": TEXT,
        "schemaVersion": {"type": "integer", "minimum": 38},
        "templating": {
            "type": "object",
            "required": ["list"],
            "properties": {
                "list": {
                    "type": "array",
                    "contains": {
                        "properties": {
                            "name": {"const": "datasource"},
                            "type": {"const": "datasource"},
                            "query": {"const": "prometheus"},
                        }
                    },
                }
            },
        },
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos", "datasource", "targets"],
                "properties": {
                    "id": {"type": "integer"},
                    "type": {"enum": ["timeseries", "stat", "table"]},
                    "title": TEXT,
                    "datasource": DATASOURCE,
                    "gridPos": {
                        "required": ["x", "y", "w", "h"],
                        "properties": {"x": PLACE, "w": PLACE, "y": {"type": "integer"}},
                    },
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "required": ["refId", "expr", "datasource"],
                            "properties": {"refId": TEXT, "expr": TEXT, "datasource": DATASOURCE},
                        },
                    },
                },
            },
        },
    },
}


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


@pytest.fixture
def scrape(tmp_path: Path) -> str:
    """The monitor's metrics, for a ledger in which a round was done."""
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    database.upgrade()
    day_figures = {
        "window": {"loans": 300},
        "features": [{"feature": "grade", "psi": 0.2}],
        "score": {"psi": 0.3},
        "estimated": {"auc": estimate(0.7), "recall": None, "late_rate": estimate(0.2)},
        "realised": {"auc": estimate(0.6), "loans": 200},
        "calibration": {"ratio": estimate(1.3)},
    }
    with database.writing() as connection:
        connection.execute(
            versions.insert().values(number=1, version="a", digest="d", threshold=0.5)
        )
        connection.execute(watchers.update().values(judged_ms=86_400_000))
        connection.execute(
            figures.insert().values(version=1, kind="day", day=0, figures=json.dumps(day_figures))
        )
        connection.execute(
            alarms.insert().values(
                version=1, rule="calibration", about="late rate", level="act", since_ms=1
            )
        )
    shown = Metrics(database, 3600)
    shown.set_leader(True)
    return generate_latest(shown.registry).decode()


def names_in(exposition: str) -> set[str]:
    """The names of samples, and of metrics that have none yet."""
    return {line.split(" ")[2] for line in exposition.splitlines() if line.startswith("# TYPE")}


def application_metrics() -> set[str]:
    """The names of the samples of the web process."""
    names = set()
    for family in application.REGISTRY.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


def metrics_in(expressions: list[str]) -> set[str]:
    """The metrics that PromQL expressions name."""
    return {name for text in expressions for name in re.findall(r"\bpeerloan_\w+", text)}


def alert_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS)["groups"] for rule in group["rules"]]


def test_every_metric_that_alerts_and_dashboard_query_exists(scrape: str) -> None:
    exported = names_in(scrape) | application_metrics()
    queries = [
        target["expr"] for panel in json.loads(DASHBOARD)["panels"] for target in panel["targets"]
    ]
    queries += [
        variable.get("query", "") for variable in json.loads(DASHBOARD)["templating"]["list"]
    ]
    for queried in (metrics_in([rule["expr"] for rule in alert_rules()]), metrics_in(queries)):
        assert len(queried) > 5
        assert queried <= exported, queried - exported


def test_a_scrape_has_the_values_of_the_ledger(scrape: str) -> None:
    for line in (
        "peerloan_monitor_leader 1.0",
        "peerloan_monitor_ledger_available 1.0",
        "peerloan_monitor_round_timestamp_seconds 86400.0",
        'peerloan_drift_psi{about="grade",model="a"} 0.2',
        'peerloan_estimated{figure="late_rate",model="a"} 0.2',
        'peerloan_realised{figure="auc",model="a"} 0.6',
        'peerloan_calibration_ratio{figure="low",model="a"} 1.2',
        'peerloan_alarm{about="late rate",level="act",model="a",rule="calibration"} 1.0',
        "peerloan_events_undelivered 0.0",
    ):
        assert line in scrape.splitlines(), line


def test_without_the_ledger_a_scrape_only_reports_that(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none' / 'ledger.db'}")
    shown = generate_latest(Metrics(database, 3600).registry).decode()
    assert "peerloan_monitor_ledger_available 0.0" in shown.splitlines()
    assert "peerloan_alarm" not in shown


def test_every_metric_of_the_monitor_is_documented(scrape: str) -> None:
    created = {f"peerloan_monitor_{name}_created" for name in ("decisions", "rounds_given_up")}
    for name in names_in(scrape) - created:
        assert f"`{name}`" in MONITORING, name


def test_the_alert_rules_are_valid_and_name_a_next_step() -> None:
    jsonschema.validate(yaml.safe_load(ALERTS), RULES_SCHEMA)
    for rule in alert_rules():
        description = rule["annotations"]["description"]
        assert re.search(r"docker-compose \w+|https://", description), rule["alert"]


def test_the_dashboard_is_valid() -> None:
    dashboard = json.loads(DASHBOARD)
    jsonschema.validate(dashboard, DASHBOARD_SCHEMA)
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    limits = [
        [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        for panel in panels
        if panel["title"].startswith("PSI")
    ]
    assert limits == [[None, Rules().psi_watch, Rules().psi_act]] * 2


def test_the_default_rules_are_the_conventions_and_name_every_key() -> None:
    path = ROOT / "deploy/rules.toml"
    assert read_config(path) == MonitoringConfig()
    text = path.read_text("utf-8")
    # A commented key has its default as value: uncommenting it changes nothing.
    without = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.M)
    without = re.sub(r"^(book|command|url|secret_file) = .*$", "", without, flags=re.M)
    assert msgspec.toml.decode(without, type=MonitoringConfig) == MonitoringConfig()
    for struct in (MonitoringConfig, Rules, Channels):
        for key in struct.__struct_encode_fields__:
            assert re.search(rf"^(# )?(\[(tell\.)?)?{key}\b", text, re.M), key


def compose_file() -> dict[str, Any]:
    """The compose file, before the settings are filled in."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def test_compose_builds_each_own_image_once_and_pulls_none() -> None:
    services = compose_file()["services"]
    ours = {name: each for name, each in services.items() if each["image"].startswith("peerloan/")}
    assert len(ours) == 4
    builders: dict[str, list[str]] = {}
    for name, each in ours.items():
        assert each["pull_policy"] == "never"
        builders.setdefault(each["image"], []).extend([name] if "build" in each else [])
    for name, each in ours.items():
        (builder,) = builders[each["image"]]
        # Compose 1.29 builds in the order of starting, and would pull a missing image.
        assert builder == name or builder in each["depends_on"], name
        assert (ROOT / services[builder]["build"]["dockerfile"]).is_file()
    assert {each["image"] for each in services.values()} - set(builders) == {
        *("nginx:stable-bookworm", "postgres:15-bookworm"),
    }


def test_each_container_has_a_memory_limit_and_each_service_has_a_setting_for_it() -> None:
    found = compose_file()["services"]
    limits = {name: each["mem_limit"] for name, each in found.items()}
    assert {name for name, each in found.items() if each["restart"] == "no"} == {
        name for name, limit in limits.items() if re.fullmatch("[1-9][0-9]{2}m", limit)
    }
    swarm = {}
    for file in ("stack.yml", "ledger.yml"):
        stack = yaml.safe_load((ROOT / "deploy/swarm" / file).read_text("utf-8"))
        for name, each in stack["services"].items():
            swarm[name] = each["deploy"]["resources"]["limits"]["memory"]
    services = {name: each for name, each in limits.items() if name in swarm}
    assert services == swarm
    assert set(limits) - set(swarm) == {"setup", "ledger_upgrade"}
    for limit in services.values():
        assert re.fullmatch(r"\$\{PEERLOAN_[A-Z]+_MEMORY:-[1-9]g\}", limit)
    job = (ROOT / "deploy/swarm/deploy.sh").read_text("utf-8")
    assert f"--limit-memory {limits['ledger_upgrade']}" in job


def test_compose_needs_no_file_that_is_missing_in_a_clone() -> None:
    found = compose_file()
    assert "secrets" not in found, "secrets are files that somebody would have to create"
    for service in found["services"].values():
        assert "env_file" not in service
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            source = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", source)
            if source.startswith("."):
                # Docker would create a missing folder, owned by root.
                listed = subprocess.run(["git", "ls-files", "--error-unmatch", source], cwd=ROOT)
                assert listed.returncode == 0, source


def test_compose_publishes_plain_http_on_loopback_only_and_the_proxy_s_ports() -> None:
    published = {
        name: each["ports"] for name, each in compose_file()["services"].items() if "ports" in each
    }
    assert published == {
        "nginx": [
            "${PEERLOAN_ADDRESS:-0.0.0.0}:${PEERLOAN_HTTP_PORT:-80}:8080",
            "${PEERLOAN_ADDRESS:-0.0.0.0}:${PEERLOAN_HTTPS_PORT:-443}:8443",
            "127.0.0.1:${PEERLOAN_LOCAL_PORT:-5000}:8082",
        ]
    }


SECRET_READERS = {
    "ledger": "database_secrets",
    "ledger_upgrade": "application_secrets",
    "ms_flask_app": "application_secrets",
    "ms_model": "application_secrets",
    "ms_monitor": "monitor_secrets",
}


def test_compose_mounts_only_a_service_s_secrets_after_they_are_created() -> None:
    services = compose_file()["services"]
    setup = services.pop("setup")
    assert setup["network_mode"] == "none"
    for name, service in services.items():
        text = json.dumps(service["volumes"])
        mounted = [volume for volume in sorted(set(SECRET_READERS.values())) if volume in text]
        assert mounted == [SECRET_READERS[name]] if name in SECRET_READERS else mounted == []
        assert all(f"{volume}:/run/secrets:ro" in service["volumes"] for volume in mounted)
        before = [name]
        while "setup" not in before:
            assert before, f"{name} may start before its secrets are created"
            before = [other for each in before for other in services[each].get("depends_on", {})]


def promtool(*arguments: str) -> None:
    (tool,) = require("promtool", "promtool")
    done = subprocess.run(
        [tool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "check rules alerts.yml",
        # The operator creates the token.
        "check config --syntax-only prometheus.yml",
        "test rules alerts_test.yml",
    ],
)
def test_promtool_accepts(arguments: str) -> None:
    promtool(*arguments.split())


def documented_commands() -> list[tuple[str, str]]:
    """Every block of shell commands in the docs, with its page."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        (page.name, block) for page in pages for block in SHELL.findall(page.read_text("utf-8"))
    ]


def test_files_that_the_docs_commands_write_are_private_and_ignored_by_git() -> None:
    """Dumps of the ledger, the seal, passwords and tokens."""
    written = set()
    for page, block in documented_commands():
        for line_number, line in enumerate(block.splitlines()):
            for name in WRITES.findall(line):
                written.add(name)
                before = block.splitlines()[:line_number]
                assert "umask 077" in before, f"{page}: {line}"
    assert written >= {
        "seal.tar",
        "ledger.dump",
        "secrets/ledger_password",
        "deploy/prometheus/peerloan_token",
    }
    for name in written:
        ignored = subprocess.run(["git", "check-ignore", "--no-index", "-q", name], cwd=ROOT)
        assert ignored.returncode == 0, f"{name} is not ignored by git"


@pytest.mark.parametrize(
    "name",
    [
        *("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock", "backup/ledger.db"),
        *("peerloan-ledger/ledger.db", "peerloan-seal/key", "peerloan-tokens/key"),
        *("demo/ledger/ledger.db", "peerloan.toml", ".env", "books/q3.csv"),
        *("book.csv", "decisions.parquet", "scored.csv.gz", "scored.csv.rejects"),
    ],
)
def test_files_that_commands_write_by_default_are_ignored_by_git(name: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "--no-index", "-q", name], cwd=ROOT)
    assert ignored.returncode == 0


@pytest.mark.parametrize("existed", [False, True])
def test_prepare_makes_the_secrets_private(tmp_path: Path, existed: bool) -> None:
    """For any umask, and also if the folder existed, with or without secrets."""
    (tmp_path / "deploy").mkdir()
    for name in ("prepare.sh", "rules.toml"):
        shutil.copy(ROOT / "deploy" / name, tmp_path / "deploy" / name)
    secrets = tmp_path / "secrets"
    if existed:
        secrets.mkdir()
        for name in ("ledger_password", "webhook_secret"):
            (secrets / name).write_text("a secret")
            (secrets / name).chmod(0o444)
        secrets.chmod(0o755)

    subprocess.run(["sh", "deploy/prepare.sh"], cwd=tmp_path, check=True, umask=0)

    assert secrets.stat().st_mode & 0o777 == 0o700
    # The containers' users read the files through a mount, not through the folder.
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o444}
    assert len(list(secrets.iterdir())) == 2
    for name in ("books", "certificates", "rules"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
