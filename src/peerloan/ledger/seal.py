"""The seal: makes every later change of the ledger detectable.

Each record has a MAC (HMAC-SHA-256, RFC 2104). It covers the MAC of the previous record in the same
chain, the record's id, time and model version, and a salted digest of its values. A chain is the
records of one writer.

The key is in a folder outside the database, and so are the chains' heads: files, written every
minute, that name the newest record of each chain. So a person who can change only the database can
neither edit a record nor remove the end of a chain unnoticed. A purge erases the salt together with
the values, so that the values can't be guessed from the digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from peerloan import atomic_files, private_files
from peerloan.database.errors import LedgerError, LostSeal
from peerloan.ledger.chain_heads import HeadFiles
from peerloan.regular_files import read_regular_text

_KEY_BYTES = 32
_MAX_KEY_FILE_BYTES = 4_096
# All names that a seal's folder may contain; the last two are files of the web process.
_FILES = frozenset({"key", "newest", "heads", "ended-sessions", "tokens-made"})
_pack = msgspec.msgpack.Encoder().encode
_pack_numbers = struct.Struct(">QIQ").pack
# The heads that a chain's opening lists: chain, and number and MAC of its newest record.
OpeningHeads = list[tuple[int, int, str]]


class Seal:
    """The folder with the key and the chains' heads.

    Thread safety: any thread may call every method. `mac_template` must only be copied.
    """

    def __init__(self, folder: Path, make: bool = True) -> None:
        """Open the folder. With `make`, create the key of a new folder.

        Raises LostSeal if the folder has heads but no key, LedgerError if it can't be read.
        """
        self.folder = folder
        self.files = HeadFiles(folder, self._mac)
        is_new = make and self._make_key()
        self._close_to_others()
        self.key = self._read_key()
        # A MAC object with the key set, to be copied for each record.
        self.mac_template = hmac.new(self.key, digestmod="sha256")
        if is_new:
            with self._file_errors(self.files.newest_path):
                self.files.create_newest(0)

    @classmethod
    def existing(cls, folder: Path) -> Seal:
        """Open the seal of an existing ledger; never create one. Raises LedgerError."""
        if not has_key(folder):
            raise LedgerError(
                f"{folder}: contains no seal's key; set PEERLOAN_SEAL to the ledger's seal folder"
            )
        return cls(folder, make=False)

    def _make_key(self) -> bool:
        """Create a key if there is none. Returns whether this process created it."""
        path = self.folder / "key"
        with self._file_errors(path):
            for folder in (self.folder, self.files.folder):
                folder.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
            if path.exists():
                return False
            if self.files.chain_numbers():
                raise lost_key(self.folder, f"{self.files.folder} contains heads of its chains")
            # Another process may create it first.
            with contextlib.suppress(FileExistsError):
                key = secrets.token_bytes(_KEY_BYTES).hex().encode()
                atomic_files.publish_file(path, key, private_files.FILE_MODE)
                return True
        return False

    def _close_to_others(self) -> None:
        """Remove other users' permissions that an older release or a restored backup left."""
        paths = [self.folder / "key", self.files.folder, self.files.newest_path]
        with contextlib.suppress(OSError):  # an unreadable folder is reported when its key is read
            folder = self.folder.resolve()
            names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
            if names <= _FILES:  # otherwise the folder has other uses too
                paths.append(folder)
            paths += self.files.folder.iterdir()
        for path in paths:
            private_files.close_to_others(path)

    def _read_key(self) -> bytes:
        path = self.folder / "key"
        with self._file_errors(path):
            key = bytes.fromhex(read_regular_text(path, _MAX_KEY_FILE_BYTES))
        if len(key) != _KEY_BYTES:
            raise LedgerError(f"{path}: the seal's key can't be read: expected {_KEY_BYTES} bytes")
        return key

    @staticmethod
    @contextlib.contextmanager
    def _file_errors(path: Path) -> Iterator[None]:
        """Raise errors of a file as LedgerError."""
        try:
            yield
        except LedgerError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LedgerError(f"{path}: the seal's key can't be read: {reason}") from None

    def opening_mac(self, number: int, opened_ms: int, release: str, heads: OpeningHeads) -> bytes:
        """Return the MAC of a chain's opening, which the MAC of its first record covers."""
        return self._mac(b"chain", number, opened_ms, release, heads)

    def purge_mac(
        self, number: int, time_ms: int, before_ms: int, decisions: int, who: str
    ) -> bytes:
        """Return the MAC of a row of `purges`."""
        return self._mac(b"purge", number, time_ms, before_ms, decisions, who)

    def _mac(self, *values: object) -> bytes:
        return hmac.digest(self.key, _pack(values), "sha256")


def has_key(folder: Path) -> bool:
    """Return whether a folder contains the key of a seal."""
    return (folder / "key").exists()


def lost_key(folder: Path, reason: str) -> LostSeal:
    """Return the error of a ledger whose key is missing; `reason` is why one is expected."""
    return LostSeal(
        f"{folder / 'key'}: the seal's key is missing ({reason}); restore it from its backup. With "
        "another key all stored records would count as edited. For a new ledger, set a new "
        "database (PEERLOAN_LEDGER) and a new folder (PEERLOAN_SEAL)"
    )


def record_mac(
    template: hmac.HMAC, previous_mac: bytes, version: bytes, place: bytes, values: bytes
) -> bytes:
    """Return the MAC of a record.

    `template` is `Seal.mac_template`. The MAC covers the MAC of the previous record in the chain
    (of the opening, for the first), and the results of `version_digest`, `pack_place` and
    `values_digest`.
    """
    # Copy the template: hmac.digest would switch to other threads at each call.
    mac = template.copy()
    mac.update(previous_mac + version + place + values)
    return mac.digest()


def pack_place(record_id: bytes, time_ms: int, chain: int, seq: int) -> bytes:
    """Pack a record's id, time, chain and number in the chain into 36 bytes."""
    return record_id + _pack_numbers(time_ms, chain, seq)


def values_digest(salt: bytes, values: tuple[object, ...]) -> bytes:
    """Return the salted digest of a record's values, in the order of `records.VALUES`."""
    return hashlib.sha256(salt + _pack(values)).digest()


def version_digest(version: str, digest: str, threshold: float) -> bytes:
    """Return the digest of a model version, which the MACs of its records cover."""
    return hashlib.sha256(_pack((version, digest, threshold))).digest()
