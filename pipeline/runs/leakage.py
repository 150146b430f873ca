"""Refusal of brains that a model was trained on, where only others say how good it is."""

from collections.abc import Iterable
from pathlib import Path

from foldnorm.preprocessing.core.errors import InputError


def refuse_leak(trained_on: Iterable[str], what: str, where: Path) -> None:
    """Refuse participants that the weights of a model were fitted to.

    Args:
        trained_on: those of them, see `RunFolder.trained_on`; none if all is well.
        what: what they are used as, such as ``controls``.
        where: cohort or run that has to be changed.

    Raises:
        InputError: there is one.
    """
    leaked = sorted(set(trained_on))
    if leaked:
        raise InputError(
            f"{what}: expected participants that the model was not trained on, got {len(leaked)} "
            f"that it was (such as {leaked[0]}): {where}"
        )
