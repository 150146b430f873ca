"""Random motion of label volumes with thin sheets, which stay whole, as MONAI transforms.

Plain nearest neighbour tears about 50 holes into the sheets of a 60 mm crop turned by 5°, so sheets
that were thinned are pushed onto the new grid and thinned again.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple
from numpy.typing import NDArray

from foldnorm.pipeline.data.augmentation import (
    ELASTIC_SPACING,
    STREAM,
    AugmentationOptions,
    draw_affine,
)
from foldnorm.pipeline.data.items import GeneratorTransform, class_numbers, fold_numbers, like
from foldnorm.pipeline.data.patches import Window
from foldnorm.preprocessing.io.schemes import LabelScheme, load_scheme
from foldnorm.preprocessing.spatial.space import Matrix, resample_nearest, resample_sheets
from foldnorm.preprocessing.spatial.warp import (
    Displacement,
    smooth_displacement,
    warp_nearest,
    warp_sheets,
)
from foldnorm.preprocessing.topology.thinning import thin

LABEL_BITS, LABELS = 16, 2**16 - 1  # of a fold label below the class number; the highest label


@dataclass(frozen=True)
class SheetMotion:
    """Motion of label volumes, and the part of them that is wanted afterwards.

    Attributes:
        window: that part, of the moved volume.
        matrix: (4, 4), voxel index before → after, of the whole volume.
        elastic: (3, *sides of the window), what is added to it, if anything.
    """

    window: Window
    matrix: Matrix
    elastic: Displacement | None = None

    @property
    def source(self) -> Window:
        """Part of the volume that the motion brings into the window, and two voxels around it."""
        beside = 2 if self.elastic is None else 2 + math.ceil(np.abs(self.elastic).max())
        first, last = np.array(self.window.first), np.add(self.window.first, self.window.shape) - 1
        corners = np.array(list(product(*zip(first - beside, last + beside, strict=True))))
        back = np.linalg.inv(self.matrix)
        before = corners @ back[:3, :3].T + back[:3, 3]
        a, b, c = map(int, np.floor(before.min(axis=0)))
        i, j, k = map(int, np.ceil(before.max(axis=0)))
        return Window((a, b, c), (i - a + 1, j - b + 1, k - c + 1))

    def from_part(self, part: Window) -> Matrix:
        """(4, 4), voxel index of a part of the volume → of the window."""
        enter, leave = np.eye(4), np.eye(4)
        enter[:3, 3], leave[:3, 3] = part.first, -np.array(self.window.first)
        return leave @ self.matrix @ enter

    def nearest(self, volume: NDArray[np.integer], fill: int) -> NDArray[np.integer]:
        """Move (I, J, K) labels by nearest neighbour; what lies beyond them is ``fill``."""
        source = self.source
        part, matrix = source.of(volume), self.from_part(source)
        if self.elastic is not None:
            return warp_nearest(part, matrix, self.elastic, fill)
        return resample_nearest(part, matrix, self.window.shape, fill)

    def pushed(self, volume: NDArray[np.integer], fill: int, top: int) -> NDArray[np.integer]:
        """Move (I, J, K) labels, and push those from ``top`` on: their sheets stay whole."""
        source = self.source
        part, matrix = source.of(volume), self.from_part(source)
        if self.elastic is not None:
            return warp_sheets(part, matrix, self.elastic, fill, top)
        return resample_sheets(part, matrix, self.window.shape, fill)


class RandSheetAffine(GeneratorTransform):
    """Rotate, stretch, shift and deform a label volume at random; thin sheets stay whole.

    What lies beyond the border is what lies at it. The grid stays and the brain is moved on it, so
    the affine of a ``MetaTensor`` is kept.

    Args:
        rotation: degrees at most, about any axis.
        stretch: of each axis at most, as a share.
        shift: voxels at most along each axis, whole ones.
        elastic: voxels at most that control points are moved by along each axis.
        scheme: label scheme of the volume, its name, or a YAML file.
        thin: whether sheets of the highest class are one voxel thick, and to stay so; otherwise
            volumes are moved by nearest neighbour.

    Raises:
        InputError: a limit is below 0, or of no brain that still looks like one.

    Example:
        >>> import numpy as np
        >>> volume = np.ones((1, 16, 16, 16), np.uint8)  # inside
        >>> volume[0, 8, 4:12, 4:12] = 2  # a fold
        >>> move = RandSheetAffine(rotation=10, elastic=1).set_random_state(seed=0)
        >>> moved = move(volume)
        >>> moved.shape, moved.dtype, bool((moved != volume).any())
        ((1, 16, 16, 16), dtype('uint8'), True)
    """

    stream = STREAM

    def __init__(
        self,
        rotation: float = 0.0,
        stretch: float = 0.0,
        shift: int = 0,
        elastic: float = 0.0,
        *,
        scheme: LabelScheme | str = "skeleton",
        thin: bool = True,
    ) -> None:
        super().__init__()
        self.limits = AugmentationOptions(rotation, stretch, shift, elastic)
        self.scheme = load_scheme(scheme) if isinstance(scheme, str) else scheme
        self.thin = thin

    def __call__(self, volume: Any) -> Any:
        """(1, I, J, K) class numbers → the same shape, dtype and type, array or tensor."""
        classes = class_numbers(volume)
        motion = self.draw(self.rng, classes.shape)
        return volume if motion is None else like(volume, self.moved(classes, motion)[None])

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, ...], window: Window | None = None
    ) -> SheetMotion | None:
        """Draw how volumes are moved.

        Args:
            rng: draws.
            shape: of the volumes, (I, J, K).
            window: the part of the moved volumes that is wanted, without making the rest; None:
                all.

        Returns:
            None if all limits are 0 and nothing is drawn.
        """
        if not self.limits.moves:
            return None
        window = window or Window.whole(shape)
        matrix = draw_affine(rng, self.limits, shape)
        if not self.limits.elastic:
            return SheetMotion(window, matrix)
        elastic = smooth_displacement(rng, window.shape, self.limits.elastic, ELASTIC_SPACING)
        return SheetMotion(window, matrix, elastic)

    def moved(self, classes: NDArray[np.uint8], motion: SheetMotion) -> NDArray[np.uint8]:
        """Move (I, J, K) class numbers."""
        return self._thinned(self._on_the_new_grid(classes, motion).astype(np.uint8))

    def moved_with_folds(
        self, classes: NDArray[np.uint8], folds: NDArray[np.integer], motion: SheetMotion
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Move (I, J, K) class numbers, and their fold labels along with them.

        Returns:
            Both. A voxel where two folds meet has no label, as in a prepared cohort.
        """
        wide, labels, top = classes.astype(np.uint32), folds.astype(np.uint32), self.scheme.top
        # The class counts first, so that sheets stay whole; then the label, once the highest and
        # once the lowest that lands on a voxel: where these differ, several folds meet.
        highest, lowest = (
            self._on_the_new_grid(wide << LABEL_BITS | below, motion, LABEL_BITS)
            for below in (labels, np.where(wide == top, LABELS - labels, 0))
        )
        moved = self._thinned((highest >> LABEL_BITS).astype(np.uint8))
        label, other = highest & LABELS, LABELS - (lowest & LABELS)
        is_fold = (moved == top) & (label == other)
        return moved, np.where(is_fold, label, 0).astype(np.uint16)

    def _on_the_new_grid(
        self, classes: NDArray[np.integer], motion: SheetMotion, bits: int = 0
    ) -> NDArray[np.integer]:
        """Move class numbers; below them there may be ``bits`` of labels."""
        fill = self.scheme.fill << bits
        if self.thin:
            return motion.pushed(classes, fill, self.scheme.top << bits)
        return motion.nearest(classes, fill)

    def _thinned(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Thin sheets again, if they were thin."""
        return thin(classes, self.scheme.top) if self.thin else classes


class RandSheetAffined(GeneratorTransform, MapTransform):
    """Dictionary version of `RandSheetAffine`: what belongs to one brain is moved alike.

    Args:
        keys: of (1, I, J, K) label volumes of one grid and scheme.
        rotation: as of `RandSheetAffine`, and the others likewise.
        stretch: likewise.
        shift: likewise.
        elastic: likewise.
        scheme: likewise.
        thin: likewise.
        folds_key: fold labels of the first volume, (1, I, J, K) integers below 65,536, which move
            with its sheets.
        nearest_keys: label volumes of any other scheme, (1, I, J, K), moved by nearest neighbour.
        nearest_fill: class that lies beyond these.
        window_key: a `Window`, if only a part of the moved volumes is wanted; the rest is not made.
        allow_missing_keys: whether a dictionary may lack a key.

    Example:
        >>> import numpy as np
        >>> volume = np.ones((1, 16, 16, 16), np.uint8)
        >>> volume[0, 8, 4:12, 4:12] = 2
        >>> item = {"image": volume, "folds": np.where(volume == 2, 7, 0)}
        >>> move = RandSheetAffined("image", rotation=10, folds_key="folds")
        >>> moved = move.set_random_state(seed=0)(item)
        >>> bool((moved["image"][moved["folds"] == 7] == 2).all())
        True
    """

    stream = STREAM

    def __init__(
        self,
        keys: KeysCollection,
        rotation: float = 0.0,
        stretch: float = 0.0,
        shift: int = 0,
        elastic: float = 0.0,
        *,
        scheme: LabelScheme | str = "skeleton",
        thin: bool = True,
        folds_key: Hashable | None = None,
        nearest_keys: KeysCollection = (),
        nearest_fill: int = 0,
        window_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        GeneratorTransform.__init__(self)
        self.array = RandSheetAffine(rotation, stretch, shift, elastic, scheme=scheme, thin=thin)
        self.folds_key, self.window_key = folds_key, window_key
        self.nearest_keys, self.nearest_fill = ensure_tuple(nearest_keys), nearest_fill

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the volumes moved."""
        changed = dict(data)
        keys = list(self.key_iterator(changed))
        if not keys:
            return changed
        shape = tuple(changed[keys[0]].shape[1:])
        window = Window.whole(shape) if self.window_key is None else changed[self.window_key]
        motion = self.array.draw(self.rng, shape, window)
        if motion is None:
            return changed | self._cut(changed, keys, window)
        return changed | self._moved(changed, keys, motion)

    def _moved(
        self, data: dict[Hashable, Any], keys: list[Hashable], motion: SheetMotion
    ) -> dict[Hashable, Any]:
        """Volumes by key, moved."""
        classes = {key: class_numbers(data[key]) for key in keys}
        moved: dict[Hashable, NDArray[np.integer]] = {}
        if self.folds_key is not None:
            first, folds = keys[0], fold_numbers(data[self.folds_key])
            moved[first], moved[self.folds_key] = self.array.moved_with_folds(
                classes.pop(first), folds, motion
            )
        moved |= {key: self.array.moved(volume, motion) for key, volume in classes.items()}
        for key in self.nearest_keys:
            moved[key] = motion.nearest(class_numbers(data[key]), self.nearest_fill)
        return {key: like(data[key], volume[None]) for key, volume in moved.items()}

    def _cut(
        self, data: dict[Hashable, Any], keys: list[Hashable], window: Window
    ) -> dict[Hashable, Any]:
        """Volumes by key, not moved, in a window."""
        if self.window_key is None:
            return {}
        folds = [] if self.folds_key is None else [self.folds_key]
        return {
            key: like(data[key], window.of(np.asarray(data[key])))
            for key in (*keys, *folds, *self.nearest_keys)
        }


class RandCubeDropout(GeneratorTransform):
    """Make cubes of a label volume void, so that a network learns to fill holes.

    Args:
        cubes: how many; they may overlap, and lie partly beyond the border.
        side: of each, voxels.
        scheme: label scheme of the volume, its name, or a YAML file; it says which class is void.

    Example:
        >>> import numpy as np
        >>> sulcus = np.full((1, 16, 16, 16), 2, np.uint8)
        >>> holes = RandCubeDropout(cubes=3, side=4).set_random_state(seed=0)(sulcus)
        >>> np.unique(holes).tolist()
        [1, 2]
    """

    stream = STREAM

    def __init__(
        self, cubes: int, side: int = 6, *, scheme: LabelScheme | str = "skeleton"
    ) -> None:
        super().__init__()
        self.cubes, self.side = cubes, side
        self.scheme = load_scheme(scheme) if isinstance(scheme, str) else scheme

    def __call__(self, volume: Any) -> Any:
        """(1, I, J, K) class numbers → the same shape, dtype and type, array or tensor."""
        classes = class_numbers(volume)
        corners = self.draw(self.rng, classes.shape)
        return like(volume, self.dropped(classes, corners)[None])

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Draw the first voxel of each cube, (cubes, 3); some may lie before the volume's."""
        corners = [[rng.integers(1 - self.side, s) for s in shape] for _ in range(self.cubes)]
        return np.array(corners, dtype=np.int64).reshape(-1, 3)

    def dropped(self, classes: NDArray[np.uint8], corners: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(I, J, K) class numbers with void cubes."""
        classes = classes.copy()
        for corner in corners.tolist():
            cube = tuple(slice(max(start, 0), start + self.side) for start in corner)
            classes[cube] = self.scheme.void
        return classes


class RandCubeDropoutd(GeneratorTransform, MapTransform):
    """Dictionary version of `RandCubeDropout`; all keys lose the same cubes.

    Args:
        keys: of (1, I, J, K) label volumes of one grid and scheme.
        cubes: as of `RandCubeDropout`, and the others likewise.
        side: likewise.
        scheme: likewise.
        allow_missing_keys: whether a dictionary may lack a key.

    Example:
        >>> import numpy as np
        >>> item = {"image": np.full((1, 16, 16, 16), 2, np.uint8)}
        >>> drop = RandCubeDropoutd("image", cubes=3, side=4).set_random_state(seed=0)
        >>> np.unique(drop(item)["image"]).tolist()
        [1, 2]
    """

    stream = STREAM

    def __init__(
        self,
        keys: KeysCollection,
        cubes: int,
        side: int = 6,
        *,
        scheme: LabelScheme | str = "skeleton",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        GeneratorTransform.__init__(self)
        self.array = RandCubeDropout(cubes, side, scheme=scheme)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with holes in the volumes."""
        changed = dict(data)
        keys = list(self.key_iterator(changed))
        if not keys:
            return changed
        corners = self.array.draw(self.rng, tuple(changed[keys[0]].shape[1:]))
        for key in keys:
            dropped = self.array.dropped(class_numbers(changed[key]), corners)
            changed[key] = like(changed[key], dropped[None])
        return changed
