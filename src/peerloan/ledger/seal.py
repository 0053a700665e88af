"""The seal: what makes a later change of the ledger show.

Each record carries a MAC (HMAC-SHA-256, RFC 2104) over the one before it in its writer's chain,
its id, time and version, and a salted digest of everything else that it says. The key stands in a
folder outside of the database, and so do the chains' heads, written every minute: who can change
the database alone can neither alter a record nor cut off a chain's end unseen. The digest is
salted and the salt is erased with the values: what was erased can't be guessed from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import struct
from pathlib import Path

import msgspec

from peerloan import private_files
from peerloan.ledger.errors import LedgerError
from peerloan.model import whole

_KEY_BYTES = 32
_FOR_OWNER = 0o600
_pack = msgspec.msgpack.Encoder().encode
_pack_place = struct.Struct(">QIQ").pack
Heads = list[tuple[int, int, str]]


class Head(msgspec.Struct, frozen=True):
    """A chain's newest record, as it is written down outside of the database."""

    chain: int
    seq: int
    mac: str
    opened: str
    time_ms: int
    closed: bool


class Seal:
    """The key and the heads in a folder; the first start makes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._heads = folder / "heads"
        self.key = self._read_key()
        # A MAC that is begun, with the key in it.
        self.keyed = hmac.new(self.key, digestmod="sha256")

    @classmethod
    def existing(cls, folder: Path) -> Seal:
        """The seal of a ledger that is there: none is made. Raises LedgerError."""
        if not (folder / "key").exists():
            raise LedgerError(f"{folder}: holds no seal's key (PEERLOAN_SEAL names its folder)")
        return cls(folder)

    def _read_key(self) -> bytes:
        path = self._folder / "key"
        try:
            for folder in (self._folder, self._heads):
                private_files.make_folder(folder)
            for file in (path, *self._heads.iterdir()):
                private_files.close_to_others(file)
            if not path.exists():
                # Another process may be the first.
                with contextlib.suppress(FileExistsError):
                    made = secrets.token_bytes(_KEY_BYTES).hex().encode()
                    whole.publish_file(path, made, _FOR_OWNER)
            key = bytes.fromhex(path.read_text("ascii"))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise LedgerError(f"{path}: the seal's key can't be read: {why}") from None
        if len(key) != _KEY_BYTES:
            raise LedgerError(f"{path}: the seal's key can't be read: expected {_KEY_BYTES} bytes")
        return key

    def check(self) -> None:
        """Raise OSError unless a head can be written down."""
        path = self._heads / "check"
        whole.replace_file(path, b" " * 300, _FOR_OWNER)
        path.unlink(missing_ok=True)  # another writer may check too

    def write_head(self, head: Head) -> None:
        """Write down a chain's head; raises OSError."""
        path = self._heads / f"{head.chain:06d}.json"
        whole.replace_file(path, msgspec.json.encode(head), _FOR_OWNER)

    def heads(self) -> list[Head]:
        """Every head that was written down, by chain; raises LedgerError."""
        found = []
        for path in sorted(self._heads.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Head))
            except (OSError, msgspec.MsgspecError) as error:
                raise LedgerError(f"{path}: can't be read: {error}") from None
        return found

    def newest_chain(self) -> int:
        """The highest number of a chain whose head was written down; 0 if there is none."""
        return max((int(path.stem) for path in self._heads.glob("[0-9]*.json")), default=0)

    def opening(self, number: int, opened_ms: int, release: str, heads: Heads) -> bytes:
        """The MAC of a chain's opening, from which its records go on."""
        return self._mac(b"chain", number, opened_ms, release, heads)

    def purge(self, number: int, time_ms: int, before_ms: int, decisions: int, who: str) -> bytes:
        """The MAC of the record that values were erased."""
        return self._mac(b"purge", number, time_ms, before_ms, decisions, who)

    def _mac(self, *what: object) -> bytes:
        return hmac.digest(self.key, _pack(what), "sha256")


def record_mac(
    keyed: hmac.HMAC, before: bytes, version: bytes, name: bytes, digest: bytes
) -> bytes:
    """The MAC of a record, by a seal's `keyed`: after the one before, over its version, its name in
    the chain (id, time, chain and seq, as `record_name` has them) and the digest of its values.
    """
    # A copy, and not hmac.digest: that lets other threads run first, each time.
    mac = keyed.copy()
    mac.update(before + version + name + digest)
    return mac.digest()


def record_name(record_id: bytes, time_ms: int, chain: int, seq: int) -> bytes:
    """What a record's place in its chain is, in 36 bytes."""
    return record_id + _pack_place(time_ms, chain, seq)


def values_digest(salt: bytes, values: tuple[object, ...]) -> bytes:
    """The salted digest of a record's values, in the order of `records.VALUES`."""
    return hashlib.sha256(salt + _pack(values)).digest()


def version_digest(version: str, digest: str, threshold: float) -> bytes:
    """What stands for a model version in a record's MAC."""
    return hashlib.sha256(_pack((version, digest, threshold))).digest()
