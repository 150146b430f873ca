"""Items: a volume and what belongs to it, as a dictionary that MONAI transforms take.

An item holds ``image``, (1, *sides), and beside it what a model learns from: ``pair``, ``folds`` or
``sulci``, (1, *sides) each. Random transforms are seeded anew for each draw, by its number, so what
comes out is the same in a resumed run, and whichever process makes it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monai.transforms import Randomizable, RandomizableTransform
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray

from foldnorm.models.noise import seed_of
from foldnorm.pipeline.transforms import unpack
from foldnorm.preprocessing.io.volumes import as_integers

Item = dict[Any, Any]
ItemTransform = Callable[[Item], Item]


class GeneratorTransform(RandomizableTransform):
    """Random transform of MONAI that draws from a `numpy.random.Generator`.

    Attributes:
        stream: name of its random numbers, part of the key of each draw.
    """

    stream: str

    @property
    def rng(self) -> np.random.Generator:
        """Generator over the bits of MONAI's ``RandomState``: each number moves that on."""
        return np.random.default_rng(self.R)


def transformed(
    item: Item, transforms: Sequence[ItemTransform], seed: int, draw: int | str
) -> Item:
    """Apply transforms one after the other, the same way whenever the draw is the same.

    Args:
        item: dictionary of channel-first arrays.
        transforms: random ones draw from a stream of their own, which is named by their ``stream``
            or their class; those of one stream go on with one another's numbers.
        seed: of all draws.
        draw: its number or name.

    Returns:
        The dictionary that the last transform returns.
    """
    states: dict[str, np.random.RandomState] = {}
    for transform in transforms:
        if isinstance(transform, Randomizable):
            stream = getattr(transform, "stream", type(transform).__name__)
            if stream not in states:
                bits = np.random.PCG64(seed_of(seed, stream, draw))
                states[stream] = np.random.RandomState(bits)
            transform.set_random_state(state=states[stream])
        item = transform(item)
    return item


def stacked(item: Item, keys: Sequence[str]) -> NDArray[Any]:
    """Join those of these entries that an item holds: (C, *sides), or (*sides) if it is one."""
    channels = np.concatenate([np.asarray(item[key]) for key in keys if key in item])
    return channels if len(channels) > 1 else channels[0]


def class_numbers(volume: Any) -> NDArray[np.uint8]:
    """Return a channel-first label volume, an array or a tensor, as (I, J, K) uint8.

    Raises:
        InputError: it has not one channel and three sides, or holds no integers.
    """
    return fold_numbers(volume).astype(np.uint8)


def fold_numbers(volume: Any) -> NDArray[np.integer]:
    """Return channel-first fold labels as (I, J, K) integers; see `class_numbers`."""
    return as_integers(unpack(volume)[0])


def like(volume: Any, data: NDArray[Any]) -> Any:
    """Return data as the type and dtype of a volume, array or tensor; an affine is kept."""
    return convert_to_dst_type(data, dst=volume)[0]
