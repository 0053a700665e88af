"""The newer facts of a loan definition, which a bundle holds in `extras.json`.

Releases before these facts refuse unknown keys in `loan.json`, but ignore files that they do not
know. So `loan.json` never has a key that they do not know, and they can read every bundle.
"""

from __future__ import annotations

from typing import Any

import msgspec

from peerloan.loan import Definition

LOAN_FILE, EXTRAS_FILE = "loan.json", "extras.json"


class Extras(msgspec.Struct, frozen=True, omit_defaults=True):
    """The facts of a definition that are not in `loan.json`. Keys of later releases are ignored.

    `unchangeable` are the names of the fields that borrowers can't change by themselves.
    """

    question: str | None = None
    unchangeable: tuple[str, ...] = ()

    def added_to(self, definition: Definition) -> Definition:
        """Return the definition with these facts. Raises ValueError if they don't fit it."""
        for name in self.unchangeable:
            if name not in definition.names:
                raise ValueError(f"unchangeable: expected fields of the definition, given {name!r}")
        fields = tuple(
            msgspec.structs.replace(field, changeable=field.name not in self.unchangeable)
            for field in definition.fields
        )
        return msgspec.structs.replace(definition, question=self.question, fields=fields)


def definition_parts(definition: Definition) -> dict[str, Any]:
    """Return what a bundle holds of a definition, by file name, to be encoded as JSON."""
    unchangeable = tuple(field.name for field in definition.fields if not field.changeable)
    extras = Extras(definition.question, unchangeable)
    changeable = (msgspec.structs.replace(field, changeable=True) for field in definition.fields)
    loan = msgspec.to_builtins(msgspec.structs.replace(definition, fields=tuple(changeable)))
    del loan["question"]
    return {LOAN_FILE: loan} | ({} if extras == Extras() else {EXTRAS_FILE: extras})
