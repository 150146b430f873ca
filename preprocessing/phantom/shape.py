"""Departure of one subject's hemisphere from the template: size, pose, and a smooth warp."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from foldnorm.preprocessing.phantom.anatomy import CENTRE
from foldnorm.preprocessing.phantom.folds import keyed_rng

WAVES = 5
WAVELENGTH = (90.0, 180.0)  # mm
WARP_SD = 2.0  # mm, of the five waves together
MEAN_SCALE, SCALE_SD = 0.955, 0.03  # of the template: what real hemispheres measure
ROTATION_SD = 1.5  # degrees
TRANSLATION_SD = 0.8  # mm
INVERSION_STEPS = 6  # of the fixed point; the warp's slope is below 0.2, so 6 leave < 0.001 mm


@dataclass(frozen=True)
class SubjectShape:
    """World → template: ``matrix @ (p − shift) + Σ_w amplitudes[w] sin(waves[w]·p + phases[w])``.

    Attributes:
        matrix: (3, 3).
        shift: (3,) mm, where the template's centre lies.
        waves: (5, 3) radians a mm.
        phases: (5,).
        amplitudes: (5, 3) mm.
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]
    waves: NDArray[np.float64]
    phases: NDArray[np.float64]
    amplitudes: NDArray[np.float64]

    @classmethod
    def sample(cls, seed: int, subject: int) -> "SubjectShape":
        """Draw the shape of a subject."""
        rng = keyed_rng(seed, subject, 0, "shape")
        scale = np.diag(1 / (MEAN_SCALE * rng.normal(1, SCALE_SD, 3)))
        rotation = Rotation.from_euler("xyz", rng.normal(0, ROTATION_SD, 3), degrees=True)
        directions = rng.normal(size=(WAVES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        waves = directions * (2 * np.pi / rng.uniform(*WAVELENGTH, (WAVES, 1)))
        # A sine has variance 1/2, so this gives each coordinate the sd that is aimed at.
        amplitudes = rng.normal(0, WARP_SD * np.sqrt(2 / WAVES), (WAVES, 3))
        return cls(
            scale @ rotation.as_matrix(),
            CENTRE + rng.normal(0, TRANSLATION_SD, 3),
            waves,
            rng.uniform(0, 2 * np.pi, WAVES),
            amplitudes,
        )

    def to_world(self, template: NDArray[np.float64]) -> NDArray[np.float64]:
        """Template points, (..., 3) mm from the centre → world mm, by fixed-point iteration."""
        inverse = np.linalg.inv(self.matrix).T
        world = template @ inverse + self.shift
        for _ in range(INVERSION_STEPS):
            warp = np.sin(world @ self.waves.T + self.phases) @ self.amplitudes
            world = (template - warp) @ inverse + self.shift
        return world
