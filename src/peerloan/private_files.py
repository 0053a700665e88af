"""Make files and folders private to their owner, whatever the umask is.

Used for everything that contains loans, decisions, keys or secrets, existing files included.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from functools import cache
from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
log = logging.getLogger(__name__)


def opener(path: str, flags: int) -> int:
    """Open a file, created as private: pass this function as `opener` to `open`."""
    return os.open(path, flags, FILE_MODE)


def make_file(path: Path) -> None:
    """Create a file if it does not exist, and make it private; raises OSError."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, FILE_MODE))
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Remove the permissions of group and others from a file or folder, if it exists.

    A change is logged, and so is a failure, for example if another user owns the file. Not changed:
    a folder with the sticky bit, which all users share (/tmp); pipes and devices; and symbolic
    links, because another user may have created one to make this process change another file.
    """
    with contextlib.suppress(OSError):  # it does not exist (any more)
        mode = path.lstat().st_mode
        is_closable = stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not mode & stat.S_ISVTX)
        if not is_closable or not mode & _OTHERS:
            return
        with contextlib.suppress(OSError):
            path.chmod(mode & stat.S_IRWXU)
        # Some file systems ignore chmod without an error, so read the mode again.
        _log_change(path, stat.S_IMODE(mode), stat.S_IMODE(path.stat().st_mode))


@cache
def _log_change(path: Path, old_mode: int, new_mode: int) -> None:
    """Log whether the mode was changed, once per process and file."""
    if new_mode & _OTHERS:
        log.warning(
            "%s: other users of this machine have access (mode %04o), and this process can't "
            "change that; its owner should run: chmod go= %s",
            *(path, old_mode, path),
        )
    else:
        log.warning(
            "%s: other users of this machine had access (mode %04o); it was removed", path, old_mode
        )
