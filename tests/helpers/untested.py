"""Run a program as if this release was not tested with the installed libraries.

python tests/helpers/untested.py MODULE ARGUMENT…: the installed versions are untested.
python tests/helpers/untested.py --without MODULE:NAME … -- MODULE ARGUMENT…: private names are
missing from the libraries.
"""

from __future__ import annotations

import importlib
import runpy
import sys

from peerloan.web.http import tested_libraries

OTHER_VERSIONS = dict.fromkeys(tested_libraries.TESTED_VERSIONS, ("0.1", "0.2"))


def main() -> None:
    """Change the libraries, then run the program."""
    sys.path.pop(0)  # this folder
    arguments = sys.argv[1:]
    if arguments[0] == "--without":
        end = arguments.index("--")
        for module, _, name in (argument.partition(":") for argument in arguments[1:end]):
            delattr(importlib.import_module(module), name)
        arguments = arguments[end + 1 :]
    else:
        tested_libraries.TESTED_VERSIONS = OTHER_VERSIONS
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
