"""Options of preparing the volumes of a cohort, and their record."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import (
    GREY_WHITE,
    SKELETON,
    LabelScheme,
    scheme_from_dict,
)
from foldnorm.preprocessing.spatial.downsample import METHODS, Method


@dataclass(frozen=True)
class Preparation:
    """Options of preparing every volume of a cohort, the crop excepted.

    Attributes:
        scheme: label scheme.
        voxel_size: mm, or None for that of the input.
        factor: input voxels a side that become one, instead of a voxel size.
        space: ``native``, or ``mni``: the ICBM2009c grid at ``voxel_size``.
        hull: ``keep``, or ``remove``: the sheet between brain and outside becomes outside.
        thin: thin the sheets of the highest class after downsampling.
        folds: ``auto``: label folds where there is a label volume, or a fold graph of this very
            skeleton; ``none``: leave labels out.
        method: of downsampling.
        mirror_right: store right hemispheres in left-hemisphere voxel order.
        pair: scheme of a second volume of each hemisphere, brought to the very same grid.
        whole_brain: both hemispheres of a participant in one volume.
    """

    scheme: LabelScheme
    voxel_size: float | None = 1.0
    method: Method = "sulcus-priority"
    mirror_right: bool = False
    factor: int | None = None
    space: Literal["native", "mni"] = "native"
    hull: Literal["keep", "remove"] = "keep"
    thin: bool = False
    folds: Literal["auto", "none"] = "auto"
    pair: LabelScheme | None = None
    whole_brain: bool = False

    def for_second_volume(self) -> "Preparation":
        """Return the preparation of a second volume that comes without its first."""
        assert self.pair is not None
        return replace(self, scheme=self.pair, pair=None, method="nearest", thin=False, hull="keep")

    def __post_init__(self) -> None:
        if self.space == "mni" and self.voxel_size is None:
            raise InputError("--space mni needs a --voxel-size in mm: its grid is not the input's")
        if self.hull == "remove" and self.scheme.stem != SKELETON.stem:
            raise InputError(f"--hull remove is for skeletons, not for scheme {self.scheme.name!r}")
        if self.voxel_size is not None and not 0 < self.voxel_size < float("inf"):
            raise InputError(f"expected a voxel size above 0 mm, got {self.voxel_size:g}")
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r} is none of {', '.join(METHODS)}")
        if self.factor is not None and self.voxel_size is not None:
            raise InputError("give a voxel size or a factor, not both")
        if self.whole_brain and self.mirror_right:
            raise InputError("a whole brain has both sides; --mirror-right is for one")
        if self.pair is not None and (not self.pair.stem or self.pair.stem == self.scheme.stem):
            raise InputError(f"scheme {self.pair.name!r} names no other volume to pair with")

    @property
    def checks_folds_on_white(self) -> bool:
        """True if the pair is skeleton and grey-white, where no fold may lie on white matter."""
        stems = (self.scheme.stem, self.pair.stem if self.pair else "")
        return stems == (SKELETON.stem, GREY_WHITE.stem)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "scheme": self.scheme.as_dict(),
            "voxel_size": self.voxel_size,
            "method": self.method,
            "mirror_right": self.mirror_right,
            "factor": self.factor,
            "space": self.space,
            "hull": self.hull,
            "thin": self.thin,
            "folds": self.folds,
            "pair": None if self.pair is None else self.pair.as_dict(),
            "whole_brain": self.whole_brain,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Preparation":
        """Inverse of `as_dict`."""
        others = {key: value for key, value in content.items() if key in cls.__dataclass_fields__}
        pair = content.get("pair")
        return cls(
            **{
                **others,
                "scheme": scheme_from_dict(content["scheme"]),
                "pair": None if pair is None else scheme_from_dict(pair),
            }
        )
