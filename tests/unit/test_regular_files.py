"""Files that users name, and pipes, devices and folders in their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from peerloan.database import Database, LedgerError
from peerloan.loan import DefinitionError
from peerloan.loan.toml import read_definition
from peerloan.monitoring.config import MonitoringConfigError, Webhook, read_config
from peerloan.regular_files import FileTooLarge, NotRegularFile, read_regular_file
from peerloan.settings import SettingsError, read_settings


def connect_with_password(path: Path) -> None:
    Database("postgresql://nobody@127.0.0.1:1/none", path).prepare()


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "definition": (read_definition, DefinitionError),
    "settings": (lambda path: read_settings({"PEERLOAN_CONFIG": str(path)}), SettingsError),
    "rules": (read_config, MonitoringConfigError),
    "secret": (lambda path: Webhook("https://a", str(path)).secret(), MonitoringConfigError),
    "password": (connect_with_password, LedgerError),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_refused_without_waiting_for_a_writer(reader: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read, error = READERS[reader]
    with pytest.raises(error, match="is a pipe, expected a regular file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("reader", READERS)
def test_an_endless_device_behind_a_link_is_refused_unread(reader: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    read, error = READERS[reader]
    with pytest.raises(error, match="is a device, expected a regular file"):
        read(tmp_path / "link")


@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_gigabytes_is_refused_unread(reader: str, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2_000_000_000)
    read, error = READERS[reader]
    with pytest.raises(error, match="has 2,000,000,000 bytes, expected at most 1"):
        read(tmp_path / "sparse")


def test_a_file_of_the_limit_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular_file(tmp_path / "link", 5) == b"12345"
    with pytest.raises(FileTooLarge) as refused:
        read_regular_file(tmp_path / "file", 4)
    assert refused.value.size == 5
    assert refused.value.filename == str(tmp_path / "file")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotRegularFile, match="is a folder, expected a regular file"):
        read_regular_file(tmp_path, 5)


def test_a_file_that_grows_while_it_is_read_is_refused() -> None:
    # The system reports a size of 0 for this file, but reading it gives bytes.
    with pytest.raises(OSError, match="grew while it was read"):
        read_regular_file(Path("/proc/self/status"), 100_000)
