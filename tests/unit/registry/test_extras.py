"""The newer facts of a definition are kept in a bundle, and the release before can read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from helpers.drafts import AGE_DEFINITION, age_draft
from helpers.paths import FORMATS
from helpers.stores import update_manifest
from peerloan.loan import Definition, breaking_changes, read_alike
from peerloan.model import Policy
from peerloan.registry import Bundle, BundleError, Draft, Store
from peerloan.registry.extras import definition_parts
from peerloan.registry.manifest import read_definition, read_manifest

QUESTION = "Gone bad within a year?"
(AGE,) = AGE_DEFINITION.fields
TOLD = msgspec.structs.replace(
    AGE_DEFINITION,
    question=QUESTION,
    fields=(msgspec.structs.replace(AGE, changeable=False),),
)
BUNDLES = sorted(path.parent for path in FORMATS.glob("*/*/loan.json"))


def drafted(definition: Definition) -> Draft:
    """A draft of a scorecard with this definition of one field."""
    draft = age_draft((-3.0, 0.5), Policy.by_cost())
    files = {name: content for name, content in draft.files.items() if name != "loan.json"}
    for name, part in definition_parts(definition).items():
        files[name] = msgspec.json.format(msgspec.json.encode(part), indent=1)
    return Draft(draft.manifest, files)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one version, whose definition has the newer facts."""
    store = Store(tmp_path / "store")
    store.publish(drafted(TOLD))
    return store


@pytest.fixture
def folder(store: Store) -> Path:
    """The folder of the version."""
    return store.folder(store.versions()[0])


def test_a_bundle_keeps_the_newer_facts(folder: Path) -> None:
    assert Bundle.read(folder).definition == TOLD
    assert read_definition(folder) == TOLD
    manifest, _ = read_manifest(folder)
    content = (folder / "extras.json").read_bytes()
    assert manifest.files["extras.json"].bytes == len(content)
    assert json.loads(content) == {"question": QUESTION, "unchangeable": ["age"]}


def test_without_newer_facts_there_is_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = store.folder(store.publish(drafted(AGE_DEFINITION)))
    assert not (folder / "extras.json").exists()
    definition = Bundle.read(folder).definition
    assert (definition.question, definition["age"].changeable) == (None, True)
    assert definition.question_text == "Late?"


def test_one_fact_is_enough(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    asked = msgspec.structs.replace(AGE_DEFINITION, question=QUESTION)
    fixed = msgspec.structs.replace(TOLD, question=None)
    for definition, extras in (
        (asked, {"question": QUESTION}),
        (fixed, {"unchangeable": ["age"]}),
    ):
        folder = store.folder(store.publish(drafted(definition)))
        assert json.loads((folder / "extras.json").read_bytes()) == extras
        assert read_definition(folder) == definition


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_loan_json_is_written_as_before(folder: Path) -> None:
    stored = (folder / "loan.json").read_bytes()
    definition = read_definition(folder)
    first = msgspec.structs.replace(definition.fields[0], changeable=False)
    told = msgspec.structs.replace(
        definition, question=QUESTION, fields=(first, *definition.fields[1:])
    )
    for each in (definition, told):
        parts = definition_parts(each)
        assert msgspec.json.format(msgspec.json.encode(parts["loan.json"]), indent=1) == stored


def test_a_copy_with_another_policy_keeps_them(store: Store) -> None:
    copy = store.publish_with_policy(store.versions()[0], Policy.by_cost(3.0))
    assert store.load(copy).definition == TOLD
    assert store.definition(copy) == TOLD


def test_they_change_neither_requests_nor_values() -> None:
    for old, new in ((AGE_DEFINITION, TOLD), (TOLD, AGE_DEFINITION)):
        assert breaking_changes(old, new) == []
        assert read_alike(old, new)


def test_a_later_key_is_ignored(folder: Path) -> None:
    extras = json.loads((folder / "extras.json").read_bytes())
    (folder / "extras.json").write_text(json.dumps(extras | {"later": 1}), "utf-8")
    update_manifest(folder)
    assert Bundle.read(folder).definition == TOLD


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"question": 3}', "extras.json can't be read: Expected `str | null`, got `int`"),
        ('{"question": " "}', "extras.json: expected text, got an empty one"),
        ("{", "extras.json can't be read: "),
        (
            '{"unchangeable": ["age", "sex"]}',
            "extras.json: unchangeable: expected fields of the definition, given 'sex'",
        ),
    ],
)
def test_wrong_facts_are_refused(folder: Path, content: str, reason: str) -> None:
    (folder / "extras.json").write_text(content, "utf-8")
    update_manifest(folder)
    for read in (Bundle.read, read_definition):
        with pytest.raises(BundleError) as caught:
            read(folder)
        assert f"{folder.name}: {reason}" in str(caught.value)


def test_a_changed_or_removed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    removed = tmp_path / folder.name
    shutil.copytree(folder, removed)
    (removed / "extras.json").unlink()
    path = folder / "extras.json"
    path.write_bytes(path.read_bytes().replace(b"year", b"week"))
    for place, reason in ((folder, "was changed"), (removed, "No such file")):
        for read in (Bundle.read, read_definition):
            with pytest.raises(BundleError, match=f"extras.json.*{reason}"):
                read(place)


# The release before


class OldLabel(msgspec.Struct, forbid_unknown_fields=True):
    """A label as the release before reads it."""

    column: str
    late: int | float | str | bool
    on_time: int | float | str | bool


class OldField(msgspec.Struct, forbid_unknown_fields=True):
    """A field as the release before reads it."""

    name: str
    kind: Literal["number", "whole", "category", "ordered"]
    label: str
    help: str = ""
    unit: str = ""
    min: float | None = None
    above: float | None = None
    max: float | None = None
    percent: bool = False
    levels: tuple[str, ...] = ()
    missing: bool = False
    riskier: Literal["higher", "lower"] | None = None
    more: str = "higher"
    less: str = "lower"
    default: float | str | None = None
    seen: tuple[float | str, ...] | None = None


class OldDefinition(msgspec.Struct, forbid_unknown_fields=True):
    """A `loan.json` as the release before reads it: it refuses keys that it does not know."""

    model: str
    label: OldLabel
    field: tuple[OldField, ...]
    roles: dict[str, Any]
    texts: dict[str, str]


def test_the_release_before_reads_a_bundle_with_newer_facts(folder: Path) -> None:
    content = (folder / "loan.json").read_bytes()
    assert msgspec.json.decode(content, type=OldDefinition).field[0].name == "age"
    assert set(json.loads(content)["roles"]) == {"id", "date", "exposure", "horizon"}
    # It opens the bundle without the file: whatever else it reads does not depend on it.
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["files"]["extras.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    assert Bundle.read(folder).definition == AGE_DEFINITION
    assert np.isfinite(Bundle.read(folder).decide((0.5,)).margin)
