"""Downsampling of label volumes; the default keeps sulci whole.

*Sulcus priority* pushes every source voxel into the target voxel that holds its centre; where
several meet, the highest class wins. Along each axis the map source index → target index is
monotone, so on an axis-aligned grid a sulcus can be merged but never be cut, and the number of
26-connected components never grows.

The target grid starts at the corner of the source grid, so its first voxel centre lies half a
target voxel inside. The map is that of the *whole* grid even when only a crop is pushed: the
result does not depend on the crop.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.choices import Resampling
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.io.volumes import LabelVolume, voxel_size_of

METHODS: tuple[Resampling, ...] = get_args(Resampling)
# Headers hold 0.7000122 where 0.7 is meant: sizes this close are the same size.
SAME_SIZE = 1e-3


@dataclass(frozen=True)
class ResamplingPlan:
    """Resampling plan: place of a crop in the source grid, and scale of each axis.

    Attributes:
        scale: source voxel side / target voxel side, for each axis; 1.0 keeps an axis.
        start: index, in the whole source grid, of the first voxel of the crop.
    """

    scale: tuple[float, float, float]
    start: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def to_voxel_size(
        cls, affine: NDArray[np.float64], target: float, start: tuple[int, int, int] = (0, 0, 0)
    ) -> "ResamplingPlan":
        """Plan from the voxel size of ``affine`` to cubes of ``target`` mm."""
        if not target > 0:
            raise InputError(f"expected a voxel size above 0 mm, got {target:g}")
        scales = [size / target for size in voxel_size_of(affine)]
        i, j, k = (1.0 if abs(s - 1) < SAME_SIZE else s for s in scales)
        return cls((i, j, k), start)

    @classmethod
    def by_factor(cls, factor: int, start: tuple[int, int, int] = (0, 0, 0)) -> "ResamplingPlan":
        """Plan that makes blocks of ``factor`` voxels along each axis into one."""
        if factor < 1:
            raise InputError(f"expected a downsampling factor of at least 1, got {factor}")
        return cls((1 / factor, 1 / factor, 1 / factor), start)

    @property
    def is_identity(self) -> bool:
        """True if the plan changes nothing."""
        return self.scale == (1.0, 1.0, 1.0)

    def target_index(self, axis: int, length: int) -> NDArray[np.int64]:
        """Index, in the whole target grid, of the voxel that holds each source centre: (length,).

        The 1e-9 keeps a centre that lies on a face from falling to either side by rounding.
        """
        source = np.arange(self.start[axis], self.start[axis] + length) + 0.5
        return np.floor(source * self.scale[axis] + 1e-9).astype(np.int64)

    def target_affine(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Affine of the whole target grid from that of the whole source grid, (4, 4)."""
        steps = np.array([1 / s for s in self.scale])
        change = np.diag([*steps, 1.0])
        change[:3, 3] = 0.5 * steps - 0.5
        return affine @ change


@dataclass(frozen=True)
class NativeTarget:
    """The volume's own grid at another voxel size.

    Attributes:
        volume: the whole volume.
        plan: scales, and where the crop that is resampled starts.
    """

    volume: LabelVolume
    plan: ResamplingPlan

    @property
    def affine(self) -> NDArray[np.float64]:
        """Affine of the whole target grid."""
        return self.plan.target_affine(self.volume.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the whole target grid."""
        whole = ResamplingPlan(self.plan.scale)
        sides = enumerate(self.volume.data.shape)
        i, j, k = (int(whole.target_index(axis, side)[-1]) + 1 for axis, side in sides)
        return i, j, k

    def resample(
        self,
        labels: NDArray[np.integer],
        *,
        method: Resampling = "sulcus-priority",
        canonical_values: NDArray[np.int64] | None = None,
        fill: int = 0,
    ) -> tuple[NDArray[np.integer], tuple[int, int, int]]:
        """Resample as `downsample` does."""
        return downsample(labels, self.plan, method=method, canonical_values=canonical_values)


def downsample(
    classes: NDArray[np.integer],
    plan: ResamplingPlan,
    *,
    method: Resampling = "sulcus-priority",
    canonical_values: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.integer], tuple[int, int, int]]:
    """Resample class numbers (or fold labels) onto the target grid.

    Args:
        classes: (I, J, K) uint8 or uint16, the part of the source that starts at ``plan.start``.
        plan: the scales and the start.
        method: ``sulcus-priority``: highest class among the source voxels whose centre lies in
            the target voxel. ``max``: highest class among those that overlap it (block maximum;
            the same for whole factors). ``nearest``: class at the target centre. ``linear``:
            canonical values interpolated, then snapped to the nearest of them.
        canonical_values: raw value of each class, for ``linear``; the class numbers by default.

    Returns:
        The resampled labels, same dtype, and the index of their first voxel in the target grid.

    An axis whose target voxels are *smaller* (1.1 mm to 1 mm) keeps every source voxel and
    repeats the nearest one where a target voxel holds no source centre.

    Example:
        >>> line = np.uint8([0, 2, 0, 1]).reshape(4, 1, 1)
        >>> small, start = downsample(line, ResamplingPlan.by_factor(2))
        >>> small.ravel().tolist(), start  # the highest class of each pair
        ([2, 1], (0, 0, 0))
    """
    if method not in METHODS:
        raise InputError(f"method {method!r} is none of {', '.join(METHODS)}")
    if min(classes.shape) == 0:
        raise InputError(f"expected a volume with voxels, got shape {classes.shape}")
    maps = [plan.target_index(axis, length) for axis, length in enumerate(classes.shape)]
    start = (int(maps[0][0]), int(maps[1][0]), int(maps[2][0]))
    if plan.is_identity:
        return classes, start
    if method == "nearest":
        return _pull_nearest(classes, plan, maps), start
    if method == "linear":
        values = np.arange(int(classes.max()) + 1) if canonical_values is None else canonical_values
        return _pull_linear(classes, plan, maps, values), start
    if method == "max":
        return _block_maximum(classes, plan, maps), start
    return _push_maximum(classes, plan, maps), start


def _push_maximum(
    classes: NDArray[np.integer], plan: ResamplingPlan, maps: list[NDArray[np.int64]]
) -> NDArray[np.integer]:
    """Push, then fill the planes that an enlarged axis left without a source centre."""
    # The axis that lies contiguous in memory goes first: the kernel works along it.
    axes = np.argsort([abs(stride) for stride in classes.strides], kind="stable")
    first = [maps[axis] - maps[axis][0] for axis in axes]
    target = np.zeros([int(m[-1]) + 1 for m in first], dtype=classes.dtype, order="F")
    _push(classes.transpose(axes), first[0], first[1], first[2], target)
    target = target.transpose(np.argsort(axes))
    for axis, scale in enumerate(plan.scale):
        if scale > 1:
            filled = maps[axis] - maps[axis][0]
            nearest = np.searchsorted(filled, np.arange(target.shape[axis]), side="right") - 1
            target = np.take(target, filled[nearest], axis=axis)
    return target


@compiled()
def _push(classes, i_map, j_map, k_map, target):  # type: ignore[no-untyped-def]  # numba infers
    """Write each source voxel into its target voxel; the highest value stays.

    Source rows that share a target row are merged first, whole rows at a time, which the
    processor does for many voxels at once; then the merged rows are pushed along themselves.
    """
    sides = classes.shape
    merged = np.zeros((j_map[-1] + 1, sides[0]), classes.dtype)
    for k in range(sides[2]):
        for j in range(sides[1]):
            row = merged[j_map[j]]
            for i in range(sides[0]):
                value = classes[i, j, k]
                row[i] = value if value > row[i] else row[i]
        if k + 1 < sides[2] and k_map[k + 1] == k_map[k]:
            continue
        for j in range(merged.shape[0]):
            for i in range(sides[0]):
                if merged[j, i] > target[i_map[i], j, k_map[k]]:
                    target[i_map[i], j, k_map[k]] = merged[j, i]
        merged[:] = 0


def _block_maximum(
    classes: NDArray[np.integer], plan: ResamplingPlan, maps: list[NDArray[np.int64]]
) -> NDArray[np.integer]:
    """Highest class among the source voxels that overlap each target voxel, axis after axis."""
    for axis, scale in enumerate(plan.scale):
        target = np.arange(maps[axis][0], maps[axis][-1] + 1)
        first = np.floor(target / scale + 1e-9).astype(np.int64) - plan.start[axis]
        last = np.ceil((target + 1) / scale - 1e-9).astype(np.int64) - 1 - plan.start[axis]
        first, last = (np.clip(n, 0, classes.shape[axis] - 1) for n in (first, last))
        blocks = [
            np.take(classes, range(a, b + 1), axis=axis).max(axis=axis)
            for a, b in zip(first, last, strict=True)
        ]
        classes = np.stack(blocks, axis=axis)
    return classes


def _pull_nearest(
    classes: NDArray[np.integer], plan: ResamplingPlan, maps: list[NDArray[np.int64]]
) -> NDArray[np.integer]:
    """Class of the source voxel that holds each target centre."""
    index = []
    for axis, scale in enumerate(plan.scale):
        target = np.arange(maps[axis][0], maps[axis][-1] + 1) + 0.5
        source = np.floor(target / scale - 1e-9).astype(np.int64) - plan.start[axis]
        index.append(np.clip(source, 0, classes.shape[axis] - 1))
    return classes[np.ix_(*index)]


def _pull_linear(
    classes: NDArray[np.integer],
    plan: ResamplingPlan,
    maps: list[NDArray[np.int64]],
    canonical_values: NDArray[np.int64],
) -> NDArray[np.integer]:
    """Trilinear interpolation of the canonical values, snapped to the nearest of them."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(canonical_values[classes].astype(np.float32).T)
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetNumberOfThreads(1)  # subjects run in parallel
    resampler.SetInterpolator(SimpleITK.sitkLinear)
    resampler.SetSize([int(m[-1] - m[0] + 1) for m in maps])
    resampler.SetOutputSpacing([1 / s for s in plan.scale])
    first = [
        (m[0] + 0.5) / s - 0.5 - b for m, s, b in zip(maps, plan.scale, plan.start, strict=True)
    ]
    resampler.SetOutputOrigin([float(f) for f in first])
    resampler.SetUseNearestNeighborExtrapolator(True)
    values = SimpleITK.GetArrayFromImage(resampler.Execute(image)).T
    order = np.argsort(canonical_values)
    middles = (canonical_values[order][1:] + canonical_values[order][:-1]) / 2
    return order[np.searchsorted(middles, values)].astype(classes.dtype)
