"""Fitted state in files: arrays without pickle, and JSON."""

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from foldnorm.pipeline.artifacts import SCORER_ARRAYS, SCORER_VALUES
from foldnorm.preprocessing.core.arrays import read_npz
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import json_content, read_json, write_bytes, write_json

State = dict[str, Any]  # name → array, what JSON can hold, or a state again


class Fitted(ABC):
    """Something that is fitted on healthy brains, and can be kept in a folder.

    As scikit-learn has it, a constructor only keeps options, ``fit`` learns, and attributes whose
    names end in ``_`` are what was learned. `load` is called on an object with the options of the
    one that was saved.
    """

    @abstractmethod
    def state_dict(self) -> State:
        """State that was learned, without anything that tells whose it was."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` of an object with the same options has given."""

    def save(self, folder: Path) -> None:
        """Write what was learned: ``arrays.npz`` and ``values.json``."""
        write_state(folder, self.state_dict())

    def load(self, folder: Path) -> Self:
        """Read what `save` has written.

        Raises:
            InputError: the files are not there, or hold something else.
        """
        try:
            return self.load_state_dict(read_state(folder))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"not what a {type(self).__name__} has saved (lacks or does not fit {error}): "
                f"{folder}"
            ) from error


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a state, each file atomically."""
    flat = _flat(state)
    arrays: dict[str, Any] = {
        name: value for name, value in flat.items() if isinstance(value, np.ndarray)
    }
    values = {name: value for name, value in flat.items() if not isinstance(value, np.ndarray)}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    write_bytes(folder / SCORER_ARRAYS, stream.getvalue())
    write_json(folder / SCORER_VALUES, values)


def read_state(folder: Path) -> State:
    """Read what `write_state` has written.

    Raises:
        InputError: a file is not there, or unreadable.
    """
    flat = {**read_json(folder / SCORER_VALUES), **read_npz(folder / SCORER_ARRAYS)}
    state: State = {}
    for name, value in flat.items():
        *above, last = name.split("/")
        place = state
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(f"two values of one name, {name}: {folder}")
        place[last] = value
    return state


def _flat(state: Mapping[str, Any], prefix: str = "") -> State:
    """Names of nested states joined by ``/``; values are left as JSON gives them back.

    A number that is not finite, which JSON does not know, is kept as an array.
    """
    found: State = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, np.ndarray):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, float) and not math.isfinite(value):
            found[f"{prefix}{name}"] = np.array(value)
        else:
            found[f"{prefix}{name}"] = json_content(value)
    return found
