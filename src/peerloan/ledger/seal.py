"""The seal: makes every later change of the ledger detectable.

Each record carries a MAC (HMAC-SHA-256, RFC 2104) over the previous MAC in its writer's chain, its
id, time and version, and a salted digest of its values. The key is in a folder outside the
database. So are the chains' heads, which are written every minute. Somebody who can change only
the database can neither alter a record nor cut off a chain's end unseen. The salt is erased with
the values, so that these can't be guessed from the digest.
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
# Files of a seal's folder: its own, and the service's notes about callers.
_FILES = frozenset({"key", "newest", "heads", "ended-sessions", "tokens-made"})
_pack = msgspec.msgpack.Encoder().encode
_pack_place = struct.Struct(">QIQ").pack
# The heads in a chain's opening: chain, number and MAC of its newest record.
NamedHeads = list[tuple[int, int, str]]


class Seal:
    """The folder with the key and the chains' heads.

    A new folder gets a key. A folder with heads but no key has lost it (LostSeal).
    """

    def __init__(self, folder: Path, make: bool = True) -> None:
        """Open the folder. `make`: make a key if there never was one. Raises LedgerError."""
        self.folder = folder
        self.files = HeadFiles(folder, self._mac)
        made = make and self._make_key()
        self._close_to_others()
        self.key = self._read_key()
        # A MAC object with the key set, to be copied for each record.
        self.keyed = hmac.new(self.key, digestmod="sha256")
        if made:
            with self._file_errors(self.files.newest_path):
                self.files.begin_newest(0)

    @classmethod
    def existing(cls, folder: Path) -> Seal:
        """Open the seal of an existing ledger, without making one. Raises LedgerError."""
        if not has_key(folder):
            raise LedgerError(
                f"{folder}: holds no seal's key; set PEERLOAN_SEAL to the folder that does"
            )
        return cls(folder, make=False)

    def _make_key(self) -> bool:
        """Make a key if there is none. Returns whether this process made it."""
        path = self.folder / "key"
        with self._file_errors(path):
            for folder in (self.folder, self.files.folder):
                folder.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
            if path.exists():
                return False
            if self.files.chains():
                raise lost_key(self.folder, f"{self.files.folder} holds its chains' heads")
            # Another process may be the first.
            with contextlib.suppress(FileExistsError):
                made = secrets.token_bytes(_KEY_BYTES).hex().encode()
                atomic_files.publish_file(path, made, private_files.FILE_MODE)
                return True
        return False

    def _close_to_others(self) -> None:
        """Remove other users' permissions that an older release or a restored backup left."""
        own = [self.folder / "key", self.files.folder, self.files.newest_path]
        with contextlib.suppress(OSError):  # an unreadable folder is reported when its key is read
            folder = self.folder.resolve()
            names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
            if names <= _FILES:  # else the folder is used for something else too
                own.append(folder)
            own += self.files.folder.iterdir()
        for path in own:
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
        try:
            yield
        except LedgerError:
            raise
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise LedgerError(f"{path}: the seal's key can't be read: {why}") from None

    def opening(self, number: int, opened_ms: int, release: str, heads: NamedHeads) -> bytes:
        """Return the MAC of a chain's opening, which its first record continues."""
        return self._mac(b"chain", number, opened_ms, release, heads)

    def purge(self, number: int, time_ms: int, before_ms: int, decisions: int, who: str) -> bytes:
        """Return the MAC of a purge's record."""
        return self._mac(b"purge", number, time_ms, before_ms, decisions, who)

    def _mac(self, *what: object) -> bytes:
        return hmac.digest(self.key, _pack(what), "sha256")


def has_key(folder: Path) -> bool:
    """Return whether a folder holds a seal's key."""
    return (folder / "key").exists()


def lost_key(folder: Path, why: str) -> LostSeal:
    """Return the error of a ledger whose key is gone."""
    return LostSeal(
        f"{folder / 'key'}: the seal's key is gone ({why}); put it back from its backup. With "
        "another key all stored records would count as edited. For a new ledger, name a new "
        "database (PEERLOAN_LEDGER) and a new folder (PEERLOAN_SEAL)"
    )


def record_mac(
    keyed: hmac.HMAC, before: bytes, version: bytes, name: bytes, digest: bytes
) -> bytes:
    """Return the MAC of a record, made with a seal's `keyed`.

    It covers the previous MAC, the digest of the version, the record's place in the chain (see
    `record_name`), and the digest of its values.
    """
    # A copy, not hmac.digest, which would switch to other threads at each call.
    mac = keyed.copy()
    mac.update(before + version + name + digest)
    return mac.digest()


def record_name(record_id: bytes, time_ms: int, chain: int, seq: int) -> bytes:
    """Pack a record's id, time, chain and number into 36 bytes."""
    return record_id + _pack_place(time_ms, chain, seq)


def values_digest(salt: bytes, values: tuple[object, ...]) -> bytes:
    """Return the salted digest of a record's values, in the order of `records.VALUES`."""
    return hashlib.sha256(salt + _pack(values)).digest()


def version_digest(version: str, digest: str, threshold: float) -> bytes:
    """Return the digest of a model version that goes into a record's MAC."""
    return hashlib.sha256(_pack((version, digest, threshold))).digest()
