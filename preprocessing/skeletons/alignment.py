"""Affine alignment of a segmentation to MNI space, where no transform came with the data.

By its deep structures, where labels name them: their centres have known places in MNI space, and
so have the outermost planes of the cerebrum. Otherwise by registration of its tissue to a template
that lies in MNI space. Segmentations are registered, never images: contrast and scanner play no
part. Worlds are RAS millimetres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import sha256_of
from foldnorm.preprocessing.io.volumes import LabelVolume, read_labels
from foldnorm.preprocessing.skeletons.segmentation import (
    FREESURFER,
    GREY_WHITE,
    SIDES,
    SegmentationScheme,
    SegmentedHemisphere,
    guess_scheme,
    hemispheres,
    isin_labels,
)
from foldnorm.preprocessing.spatial.crop import bounding_box, shifted_affine
from foldnorm.preprocessing.spatial.space import Matrix, resample_linear
from foldnorm.preprocessing.topology.homotopy import Mask

if TYPE_CHECKING:
    import SimpleITK

# Centres in MNI152 space, mm: FreeSurfer's numbers left and right, the place of the left one
# (Harvard-Oxford subcortical atlas, rounded).
STRUCTURES = {
    (10, 49): (-11, -19, 7),  # thalamus
    (11, 50): (-13, 9, 10),  # caudate
    (12, 51): (-25, 1, 0),  # putamen
    (13, 52): (-20, -5, -1),  # pallidum
    (17, 53): (-25, -23, -14),  # hippocampus
    (18, 54): (-23, -5, -18),  # amygdala
    (26, 58): (-9, 12, -7),  # accumbens
}
# Outermost planes of the cerebrum there, mm: left, back, bottom; right, front, top.
OUTER_PLANES = ((-69.0, -105.0, -49.0), (69.0, 71.0, 79.0))
STRUCTURE_SD, PLANE_SD = 1.2, 3.0  # mm: how well such a place is known, for one brain
OUTERMOST = 5e-4  # share of voxels whose mean place is the outermost plane
LEAST_STRUCTURES, LEAST_MM3 = 6, 20.0
VOXEL_STRIDE = 8  # so many voxels one is looked at for the outermost planes
N_ROUNDS = 10  # of fitting, and finding the outermost voxels anew
MAX_RESIDUAL_MM = 6.0  # root mean square of what a fit may leave
MIN_OVERLAP = 0.85  # Dice of brain and template, both with their sulci closed
CLOSING_MM = 6.0
SCALES = (0.6, 1.7)  # of an adult brain's axes on their way to MNI
SHRINK, SMOOTHING_MM, STEPS = (4, 2), (4.0, 2.0), 150  # of the registration
HALF = 0.5


@dataclass(frozen=True)
class Alignment:
    """Affine alignment of a segmentation to MNI space.

    Attributes:
        world_to_mni: (4, 4) native RAS mm → MNI RAS mm.
        record: for the sidecar: method, and how well it fits.
    """

    world_to_mni: Matrix
    record: dict[str, Any]


@dataclass(frozen=True)
class Template:
    """A segmentation in MNI space.

    Attributes:
        tissue: (I, J, K) float32, 0 outside, 1 grey, 2 white matter.
        affine: (4, 4) voxel index → MNI mm.
        sha256: of its file.
    """

    tissue: NDArray[np.float32]
    affine: Matrix
    sha256: str

    def tissue_of_side(self, side: str) -> NDArray[np.float32]:
        """Return the tissue of one hemisphere, all else 0; all of it if ``side`` is empty."""
        if not side:
            return self.tissue
        x = self.affine[0, 0] * np.arange(self.tissue.shape[0]) + self.affine[0, 3]
        half = x < 0 if side == "L" else x > 0
        return self.tissue * half[:, None, None].astype(np.float32)


def read_template(path: Path, scheme: SegmentationScheme | None = None) -> Template:
    """Read a template: any segmentation that lies in MNI space.

    Raises:
        InputError: unreadable, or of no known scheme.
    """
    volume = read_labels(path)
    scheme = scheme or guess_scheme(volume)
    if scheme == GREY_WHITE:
        scheme = replace(scheme, midline=0.0)
    tissue = tissue_of(hemispheres(volume, scheme))
    return Template(tissue, volume.affine, sha256_of(path))


def align_to_structures(volume: LabelVolume) -> Alignment | None:
    """Fit deep structures and outermost planes of a segmentation to their places in MNI space.

    Weighted least squares of all twelve numbers of an affine.

    Args:
        volume: labels with FreeSurfer's numbers.

    Returns:
        None if it names too few deep structures.

    Raises:
        InputError: they lie too far from their places, or on the wrong sides.
    """
    found, places, sides = _structures(volume)
    if len(found) < LEAST_STRUCTURES:
        return None
    tissues = [tissue for tissue in (FREESURFER.left, FREESURFER.right) if tissue is not None]
    numbers = tuple(n for tissue in tissues for n in (*tissue.grey, *tissue.white))
    brain = _homogeneous(
        np.argwhere(isin_labels(volume.data, numbers))[::VOXEL_STRIDE], volume.affine
    )
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(found, places, rcond=None)[0].T
    for _ in range(N_ROUNDS):
        matrix[:3] = [
            _fitted_axis(axis, found, places[:, axis], brain, brain @ matrix[axis], sides)
            for axis in range(3)
        ]
    left_over = found @ matrix[:3].T - places
    residual = float(np.sqrt(np.square(left_over).sum(axis=1).mean()))
    _check(matrix, volume.path)
    if residual > MAX_RESIDUAL_MM:
        raise InputError(
            f"deep structures lie {residual:.1f} mm from their places in MNI space, expected at "
            f"most {MAX_RESIDUAL_MM:g} mm: {volume.path}"
        )
    record = {"Method": "structures", "Structures": len(found), "ResidualMm": round(residual, 2)}
    return Alignment(matrix, record)


def align_to_template(
    found: Sequence[SegmentedHemisphere], affine: Matrix, template: Template, path: Path | None
) -> Alignment:
    """Register the tissue of one or both hemispheres to a template's, by SimpleITK.

    Mean squares of smoothed tissue, an affine transform that begins at the centres of mass.

    Args:
        found: hemispheres of one volume.
        affine: (4, 4) of that volume.
        template: in MNI space.
        path: named in errors.

    Raises:
        InputError: what comes out overlaps too little, or is no transform between two heads.
    """
    tissue = tissue_of(found)
    expected = template.tissue_of_side(found[0].side if len(found) == 1 else "")
    from_mni = register(expected, template.affine, tissue, affine)
    matrix: Matrix = np.asarray(np.linalg.inv(from_mni), dtype=np.float64)
    _check(matrix, path)
    to_template = np.linalg.inv(template.affine) @ matrix @ affine
    brought = resample_linear(tissue, to_template, expected.shape, 0) > HALF
    size = float(np.linalg.norm(template.affine[:3, 0]))
    ours, theirs = closed(brought, size), closed(expected > 0, size)
    overlap = 2 * np.count_nonzero(ours & theirs) / (ours.sum() + theirs.sum())
    if overlap < MIN_OVERLAP:
        raise InputError(
            f"alignment to the template failed (overlap {overlap:.2f}, expected at least "
            f"{MIN_OVERLAP:g}): {path}"
        )
    return Alignment(matrix, {"Method": "template", "Overlap": round(float(overlap), 3)})


def tissue_of(found: Sequence[SegmentedHemisphere]) -> NDArray[np.float32]:
    """Tissue of hemispheres of one volume, (I, J, K) float32: 0 outside, 1 grey, 2 white matter."""
    tissue = np.zeros(found[0].grey.shape, dtype=np.float32)
    for hemisphere in found:
        tissue[hemisphere.grey], tissue[hemisphere.white] = 1, 2
    return tissue


def _structures(
    volume: LabelVolume,
) -> tuple[NDArray[np.float64], NDArray[np.float64], frozenset[str]]:
    """Centres of the structures that are there, (n, 4) world mm; places, (n, 3) mm; sides."""
    numbers = tuple(number for pair in STRUCTURES for number in pair)
    voxels = np.argwhere(isin_labels(volume.data, numbers))
    labels = volume.data[tuple(voxels.T)]
    world = _homogeneous(voxels, volume.affine)
    voxel_mm3 = float(np.prod(volume.voxel_size))
    found, places, sides = [], [], set()
    for pair, place in STRUCTURES.items():
        for number, side, sign in zip(pair, SIDES, (1, -1), strict=True):
            mine = world[labels == number]
            if len(mine) * voxel_mm3 >= LEAST_MM3:
                found.append(mine.mean(axis=0))
                places.append((sign * place[0], place[1], place[2]))
                sides.add(side)
    return np.array(found), np.array(places, dtype=np.float64), frozenset(sides)


def _fitted_axis(
    axis: int,
    found: NDArray[np.float64],
    places: NDArray[np.float64],
    brain: NDArray[np.float64],
    along: NDArray[np.float64],
    sides: frozenset[str],
) -> NDArray[np.float64]:
    """One row of the affine, (4,): to places (n,) and to the outer planes of its axis.

    ``along`` is where the last row has put the voxels of the brain, (m,) mm.
    """
    rows, targets = [found / STRUCTURE_SD], [places / STRUCTURE_SD]
    count = max(int(OUTERMOST * len(brain)), 1)
    for side, planes, end in zip(SIDES, OUTER_PLANES, (1, -1), strict=True):
        if axis > 0 or side in sides:
            outermost = np.argpartition(end * along, count)[:count]
            rows.append(brain[outermost].mean(axis=0, keepdims=True) / PLANE_SD)
            targets.append(np.array([planes[axis] / PLANE_SD]))
    fitted = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0]
    return np.asarray(fitted, dtype=np.float64)


def _homogeneous(voxels: NDArray[np.int64], affine: Matrix) -> NDArray[np.float64]:
    """Convert (n, 3) voxel indices to (n, 4) world mm, the last 1."""
    ones = np.ones((len(voxels), 1))
    return np.concatenate([voxels, ones], axis=1) @ affine.T


def _image(tissue: NDArray[np.float32], affine: Matrix) -> "SimpleITK.Image":
    """Return the part of RAS+ tissue that is not 0, as an ITK image.

    Its world stays RAS, although ITK takes every world for LPS.
    """
    import SimpleITK

    box = bounding_box(tissue > 0)
    assert box is not None
    margin = max(SHRINK) * 2
    held = np.pad(tissue[box.slices], margin)
    at = shifted_affine(affine, [start - margin for start in box.start])
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(held.transpose()))
    image.SetSpacing([float(at[axis, axis]) for axis in range(3)])
    image.SetOrigin([float(n) for n in at[:3, 3]])
    return image


def register(
    fixed_tissue: NDArray[np.float32],
    fixed_affine: Matrix,
    moving_tissue: NDArray[np.float32],
    moving_affine: Matrix,
) -> Matrix:
    """Affine of least mean squares between two smoothed maps of tissue, by SimpleITK.

    Args:
        fixed_tissue: (I, J, K) float32, 0 outside.
        fixed_affine: (4, 4), voxel index → mm.
        moving_tissue: the same of the other brain.
        moving_affine: of the other brain.

    Returns:
        (4, 4) from the world of the fixed map to that of the moving one.
    """
    import SimpleITK

    fixed, moving = _image(fixed_tissue, fixed_affine), _image(moving_tissue, moving_affine)
    centred = SimpleITK.CenteredTransformInitializer(
        fixed,
        moving,
        SimpleITK.AffineTransform(3),
        SimpleITK.CenteredTransformInitializerFilter.MOMENTS,
    )
    transform = SimpleITK.AffineTransform(centred)
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, STEPS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(SHRINK)
    method.SetSmoothingSigmasPerLevel(SMOOTHING_MM)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.SetNumberOfThreads(1)  # the same sum, and so the same bytes, on every machine
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what fails is said by the overlap
    method.Execute(fixed, moving)
    matrix = np.eye(4)
    matrix[:3, 3] = origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    for axis, point in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(point.tolist())) - origin
    return matrix


def closed(mask: Mask, size: float) -> Mask:
    """Fill the sulci of a brain, as two brains have them at different places.

    Args:
        mask: (I, J, K).
        size: of a voxel, mm.
    """
    reach = max(round(CLOSING_MM / size), 1)
    padded = np.pad(mask, reach)
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(padded, iterations=reach))
    return np.asarray(closed[(slice(reach, -reach),) * mask.ndim])


def _check(matrix: Matrix, path: Path | None) -> None:
    """Refuse an alignment that no head needs."""
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    if np.linalg.det(matrix[:3, :3]) < 0:
        raise InputError(f"left and right labels lie on the wrong sides of the world: {path}")
    if not np.isfinite(matrix).all() or scales.min() < SCALES[0] or scales.max() > SCALES[1]:
        shown = ", ".join(f"{scale:.2f}" for scale in scales)
        raise InputError(
            f"alignment to MNI space failed: it would scale the axes by {shown}, expected "
            f"{SCALES[0]:g} to {SCALES[1]:g}: {path}"
        )
