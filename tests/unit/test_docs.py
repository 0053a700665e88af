"""The docs name every existing command, option, setting, path and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from helpers.apps import create_app
from helpers.paths import ROOT
from peerloan.cli.main import peerloan
from peerloan.loan import Definition, Field
from peerloan.registry import Store
from peerloan.settings import CONFIG, PREFIX, Settings, settings_table
from peerloan.web.telemetry import metrics

CLI = (ROOT / "docs/cli.md").read_text("utf-8")
API = (ROOT / "docs/api.md").read_text("utf-8")
DEPLOY = (ROOT / "docs/deploy.md").read_text("utf-8")
LOAN = (ROOT / "docs/loan-definition.md").read_text("utf-8")


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(peerloan, "peerloan"))


def section(path: str) -> str:
    """The docs of one command: its line in a list, or its section up to the next heading."""
    match = re.search(rf"^(?:- |## )`{path}[` ].*?(?=^- `|^## |\Z)", CLI, re.M | re.S)
    assert match, f"docs/cli.md has no {path}"
    return match[0]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_documented_with_every_option(path: str) -> None:
    text = section(path)
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            for name in parameter.opts:
                assert f"`{name}" in text or f"/`{name}" in text or name in text, (path, name)


def test_the_docs_name_no_option_that_does_not_exist() -> None:
    options = {name for command in COMMANDS.values() for p in command.params for name in p.opts}
    for option in re.findall(r"`(--[a-z-]+)", CLI):
        assert option in options, option


def test_no_page_names_a_command_that_does_not_exist() -> None:
    groups = {path.rsplit(" ", 1)[0] for path in COMMANDS if path.count(" ") == 2}
    named = [
        (page.name, match)
        for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for match in re.findall(
            r"(?:^\$ |`)(peerloan [a-z]+)( [a-z][a-z-]+)?", page.read_text("utf-8"), re.M
        )
    ]
    assert len(named) > 100
    for page_name, (command, argument) in named:
        exists = command in COMMANDS or (command in groups and not argument)
        assert exists or command + argument in COMMANDS, (page_name, command + argument)


def test_each_path_of_the_index_has_at_most_five_steps() -> None:
    _, *paths = (ROOT / "docs/index.md").read_text("utf-8").split("\n## ")
    assert len(paths) == 5
    for path in paths:
        steps = re.findall(r"^(\d)\. ", path, re.M)
        assert steps == list("12345"), path.splitlines()[0]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_help(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    obvious = {"--scenario", "--port", "--workers"}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not obvious.intersection(parameter.opts):
            assert parameter.help, (path, parameter.opts)


@pytest.mark.parametrize("name", [*Settings.__dataclass_fields__])
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{PREFIX}{name.upper()}`" in CLI
    assert f"`{CONFIG}`" in CLI


def test_every_path_of_the_service_is_documented(tmp_path: Path) -> None:
    app = create_app(Settings(tmp_path), on_loopback=True)
    paths = {rule.rule for rule in app.url_map.iter_rules() if "static" not in rule.rule}
    for path in paths:
        assert f"{path}`" in API, path


def test_every_setting_of_a_deployment_is_documented_with_its_default() -> None:
    used: dict[str, set[str]] = {}
    swarm = ("deploy/swarm/stack.yml", "deploy/swarm/ledger.yml", "deploy/swarm/deploy.sh")
    for name in ("docker-compose.yml", *swarm):
        text = (ROOT / name).read_text("utf-8")
        for setting, default in re.findall(r"\$\{(PEERLOAN_[A-Z_]+):-([^}]*)\}", text):
            used.setdefault(setting, set()).add(default)
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    )
    rows = re.findall(r"^\| `(PEERLOAN_[A-Z_]+)` \| (?:`(\S+)`)? ?\|", DEPLOY, re.M)
    assert example == dict(rows) == {name: "".join(values) for name, values in used.items()}


def test_the_documented_settings_are_those_of_the_settings_table() -> None:
    cli = (ROOT / "docs/cli.md").read_text("utf-8")
    rows = [
        tuple(cell.strip() for cell in re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line).split("|"))
        for line in cli.replace("`", "").splitlines()
        if line.startswith("| PEERLOAN_")
    ]
    assert [row[1:-1] for row in rows] == settings_table()


def test_every_metric_is_documented() -> None:
    for family in metrics.REGISTRY.collect():
        assert f"`{family.name}" in API, family.name


def test_every_key_of_a_definition_is_documented() -> None:
    for struct in (Definition, Field):
        for key in struct.__struct_encode_fields__:
            assert f"`{key}`" in LOAN, key


def test_the_readme_names_the_two_commands_and_links_every_page() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "make demo" in readme
    assert "make test" in readme
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in readme, page.name


def test_no_page_links_to_a_missing_file() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_no_page_links_to_a_missing_heading() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    links = [
        (page, *link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text("utf-8"))
    ]
    assert len(links) > 100
    for page, target, anchor in links:
        assert anchor in anchors(page.parent / target if target else page), (page.name, anchor)


def test_every_file_of_a_bundle_is_documented(trained: Path) -> None:
    store = Store(trained)
    text = (ROOT / "docs/store.md").read_text("utf-8")
    for version in store.versions():
        for name in store.manifest(version).files:
            assert f"`{name}`" in text, name
