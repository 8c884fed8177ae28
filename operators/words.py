"""Words that users mistype. Imports nothing heavy: the command line begins with it."""

from collections.abc import Sequence
from difflib import get_close_matches


def nearest(word: str, known: Sequence[str]) -> str:
    """The end of a refusal, punctuated: the nearest valid word, or all when none is near."""
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"choose one of {', '.join(sorted(known))}."
