"""Supervision of models and benchmark tracks; figures of two tracks are never compared.

A model that learned from its own edits of the kind that a benchmark makes has seen the question;
one that learned from edits of another kind has not; one that learned from healthy brains alone
knows of none.
"""

from collections.abc import Mapping, Sequence

# Training edit that equals an alteration of the benchmark. Alterations that are not listed equal
# none: a model that erased folds has seen voids, and of refilled, interrupted or displaced folds it
# has seen nothing.
EDIT_OF_ALTERATION: Mapping[str, str] = {
    "fold": "folds",
    "fold-raw": "folds",
    "fold-graph": "folds",
    "ball": "balls",
    "add": "copies",
}
HEALTHY_BRAINS = "healthy brains as they are"
FOLD_NAMES = "fold names of training brains"


def describe_supervision(edits: Sequence[str], sulci: Sequence[str] = ()) -> str:
    """Describe in a few words what a model learned from.

    Args:
        edits: kinds of its training edits, if it has any.
        sulci: names that it learned, if it labels sulci.
    """
    if sulci:
        return FOLD_NAMES
    return f"its own edits ({', '.join(edits)})" if edits else HEALTHY_BRAINS


def benchmark_track(kind: str, edits: Sequence[str], sulci: Sequence[str] = ()) -> str:
    """Return the track of a model in a benchmark.

    Args:
        kind: of alteration in the benchmark.
        edits: see `describe_supervision`; likewise what follows.
        sulci: see there.
    """
    if sulci or not edits:
        return describe_supervision(edits, sulci)
    how = "the same kind" if EDIT_OF_ALTERATION.get(kind) in edits else "another kind"
    return f"edits of {how} ({', '.join(edits)})"
