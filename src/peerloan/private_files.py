"""Make files and folders private to their owner: those with loans, decisions, keys or secrets.

This holds whatever the umask is, and for existing files too.
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
    """Create a file that only its owner may read: pass it as `opener` to `open`."""
    return os.open(path, flags, FILE_MODE)


def make_file(path: Path) -> None:
    """Create a file if it does not exist, and make it private; raises OSError."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, FILE_MODE))
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Remove the permissions of group and others from a file or folder, if it exists.

    The change is logged, and so is a failure, as with a file of another user. Left as they are: a
    folder with the sticky bit, which is meant for everybody (/tmp); pipes and devices; and symbolic
    links, which another user may have made to have this process change another file.
    """
    with contextlib.suppress(OSError):  # it does not exist (any more)
        mode = path.lstat().st_mode
        is_own = stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not mode & stat.S_ISVTX)
        if not is_own or not mode & _OTHERS:
            return
        with contextlib.suppress(OSError):
            path.chmod(mode & stat.S_IRWXU)
        # Some file systems ignore chmod without an error, so look again.
        _log_change(path, stat.S_IMODE(mode), stat.S_IMODE(path.stat().st_mode))


@cache
def _log_change(path: Path, old_mode: int, new_mode: int) -> None:
    """Log, once a process, whether the mode was changed."""
    if new_mode & _OTHERS:
        log.warning(
            "%s: other users of this machine may get at it (mode %04o), and this process may not "
            "change that; let its owner run: chmod go= %s",
            *(path, old_mode, path),
        )
    else:
        log.warning("%s: was open to other users (mode %04o), and is closed now", path, old_mode)
