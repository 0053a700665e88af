"""Files and folders that their owner alone may read: what holds loans, decisions, keys or secrets.

Whatever the process's umask, and whether or not they were there before.
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
    """Open a new file for its owner alone: the `opener` of `open`."""
    return os.open(path, flags, FILE_MODE)


def make_file(path: Path) -> None:
    """See that a file is there, and that it is its owner's alone; raises OSError."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, FILE_MODE))
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Take from everybody but the owner what they may do with a file or a folder, if it is there.

    The log says so. What belongs to another user can't be closed, and then the log says that. A
    folder with the sticky bit is meant for everybody, as /tmp is: it stays. So do pipes and
    devices, and symbolic links, which another user may have put there to have this process close
    something else.
    """
    with contextlib.suppress(OSError):  # it is not there, or not any more
        mode = path.lstat().st_mode
        is_own = stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not mode & stat.S_ISVTX)
        if not is_own or not mode & _OTHERS:
            return
        with contextlib.suppress(OSError):
            path.chmod(mode & stat.S_IRWXU)
        # Some file systems change nothing, and say nothing.
        _tell(path, stat.S_IMODE(mode), stat.S_IMODE(path.stat().st_mode))


@cache
def _tell(path: Path, before: int, now: int) -> None:
    """Say once in a process what became of a mode."""
    if now & _OTHERS:
        log.warning(
            "%s: other users of this machine may get at it (mode %04o), and this process may not "
            "change that; let its owner run: chmod go= %s",
            *(path, before, path),
        )
    else:
        log.warning("%s: was open to other users (mode %04o), and is closed now", path, before)
