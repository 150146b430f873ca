"""A surface as it is seen from a side: rays in parallel, lit, furrows darker."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

STEP = 0.7  # smallest voxel side that a ray goes on at a time
SMOOTHING = 0.8  # mm, sd, of the normals
LIGHT = np.array([-0.35, 0.5, 0.79])  # towards it: upper left, in front
AMBIENT = 0.38  # share of the light that comes from everywhere
FURROW_WIDTHS = (2.0, 5.0)  # mm, sd, of the neighbourhoods that take light from a place
SHADE = 2.2  # of a place, for the share of its neighbourhood that is filled beyond `FLAT`
FLAT = 0.38  # that share at a plane, a little above it
LIFT = 1.0  # mm above the surface at which that share is read
Field = NDArray[np.float32]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Eye:
    """Frame of a picture: rays start on a plane before everything and run away from the eye.

    Attributes:
        origins: (H, W, 3) mm, of each pixel's ray; the first row is the highest.
        right: (3,), direction of the picture's right.
        up: (3,), of its top.
        towards: (3,), to the eye.
        depth: mm that a ray runs.
    """

    origins: Points
    right: Points
    up: Points
    towards: Points
    depth: float

    @classmethod
    def from_angles(
        cls,
        azimuth: float,
        elevation: float,
        size: Sequence[float],
        pixel: float,
        *,
        is_square: bool = False,
    ) -> "Eye":
        """Look at the middle of a box, whose picture is as large as the box is from there.

        Args:
            azimuth: degrees around the superior axis, 0 from the right, 90 from the front.
            elevation: degrees above the horizontal.
            size: (3,) mm of the box, whose low corner is the origin.
            pixel: side of a pixel, mm.
            is_square: make the picture as wide and high as the box's diagonal, from everywhere.
        """
        a, e = np.radians([azimuth, elevation])
        towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        right = np.array([-np.sin(a), np.cos(a), 0.0])
        up = np.cross(towards, right)
        width, height, depth = (float(np.abs(axis) @ size) for axis in (right, up, towards))
        if is_square:
            width = height = float(np.linalg.norm(size))
        x, y = (
            (np.arange(max(round(extent / pixel), 1)) + 0.5) * pixel - extent / 2
            for extent in (width, height)
        )
        start = np.array(size) / 2 + towards * depth / 2
        origins = start + x[None, :, None] * right + y[::-1, None, None] * up
        return cls(origins, right, up, towards, depth)


@dataclass(frozen=True)
class Seen:
    """Part of a surface that a picture shows.

    Attributes:
        hit: (H, W), whether a ray meets it.
        places: (N, 3) mm, where the N rays that do meet it.
        light: (N,), from 0 to 1 and a little more.
        depth: (H, W) mm from the start of each ray; infinite where it meets nothing.
    """

    hit: NDArray[np.bool_]
    places: Points
    light: NDArray[np.float64]
    depth: NDArray[np.float64]


class Surface:
    """Surface on which a field falls below a level.

    Args:
        field: (I, J, K), RAS+.
        voxel_size: mm.
        level: of the surface.
    """

    def __init__(
        self, field: NDArray[np.floating], voxel_size: Sequence[float], level: float = 0.5
    ) -> None:
        self.field, self.level = field.astype(np.float32), level
        self.voxel_size = np.array(voxel_size, dtype=np.float64)

    def seen_by(self, eye: Eye) -> Seen:
        """Follow each ray to the surface."""
        shape = eye.origins.shape[:2]
        origins = eye.origins.reshape(-1, 3)
        depth, so_far = np.full(len(origins), np.inf), np.zeros(len(origins))
        going, least = np.arange(len(origins)), STEP * float(self.voxel_size.min())
        before = self._level_at(origins)
        while len(going):
            places = origins[going] - so_far[going, None] * eye.towards
            steps = np.maximum(least, value_at(self._clearance, places, self.voxel_size, order=0))
            so_far[going] += steps
            now = self._level_at(places - steps[:, None] * eye.towards)
            met = now > 0
            share = now[met] / (now[met] - np.minimum(before[met], 0) + 1e-9)
            depth[going[met]] = so_far[going[met]] - steps[met] * share
            on = ~met & (so_far[going] < eye.depth)
            going, before = going[on], now[on]
        hit = np.isfinite(depth)
        places = origins[hit] - depth[hit, None] * eye.towards
        return Seen(hit.reshape(shape), places, self._light_at(places, eye), depth.reshape(shape))

    def _level_at(self, places: Points) -> NDArray[np.float64]:
        return value_at(self.field, places, self.voxel_size) - self.level

    def _light_at(self, places: Points, eye: Eye) -> NDArray[np.float64]:
        """Light of the lamp, of everywhere, less what the surroundings take."""
        normals = -np.stack(
            [value_at(slope, places, self.voxel_size) for slope in self._slopes], axis=-1
        )
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        lamp = (LIGHT / np.linalg.norm(LIGHT)) @ np.stack([eye.right, eye.up, eye.towards])
        filled = value_at(self._filled, places + LIFT * normals, self.voxel_size)
        shade = np.clip(1 - SHADE * (filled - FLAT), 0.25, 1.1)
        return (AMBIENT + (1 - AMBIENT) * np.clip(normals @ lamp, 0, 1)) * shade

    @cached_property
    def _clearance(self) -> Field:
        """Distance from each voxel, mm, within which there is surely nothing, or less."""
        empty = ndimage.distance_transform_edt(self.field <= self.level, self.voxel_size)
        return np.asarray(empty - 1.5 * np.linalg.norm(self.voxel_size), dtype=np.float32)

    @cached_property
    def _slopes(self) -> list[Field]:
        smooth = ndimage.gaussian_filter(self.field, SMOOTHING / self.voxel_size)
        return [np.asarray(own) for own in np.gradient(smooth, *self.voxel_size)]

    @cached_property
    def _filled(self) -> Field:
        """Share of the neighbourhood of each voxel that lies within the surface."""
        solid = (self.field > self.level).astype(np.float32)
        widths = [
            ndimage.gaussian_filter(solid, width / self.voxel_size) for width in FURROW_WIDTHS
        ]
        return np.asarray(np.mean(widths, axis=0), dtype=np.float32)


def value_at(
    field: NDArray[Any], places: Points, voxel_size: NDArray[np.float64], order: int = 1
) -> NDArray[np.float64]:
    """Value of a field at places, 0 outside it.

    Args:
        field: (I, J, K).
        places: (N, 3) mm from the outer corner of its first voxel.
        voxel_size: mm.
        order: 1 between voxels, 0 of the voxel itself.
    """
    voxels = (places / voxel_size - 0.5).T
    found = ndimage.map_coordinates(field, voxels, order=order, output=np.float64, prefilter=False)
    return np.asarray(found)
