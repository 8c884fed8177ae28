"""What a scan is refused for: one sentence for people, one code for programs, no patient in it.

Sentences say what was found, what was expected and what to do. They never hold names, dates, UIDs,
descriptions or names of files inside a folder, all of which identify patients; a series goes by its
number and by an alias of its UID.
"""

import hashlib


class Refusal(ValueError):
    """A scan that cannot be used as it is.

    Args:
        code: for programs, for example "E_MISSING_SLICES".
        sentence: for people.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"{sentence} [{code}]")
        self.code, self.sentence = code, sentence


def alias(uid: str) -> str:
    """Eight hexadecimal digits that stand for a UID, the same on every machine."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]
