"""Options of preparing the volumes of a cohort, and their record."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.core.choices import FoldLabels, Hull, Resampling, Space
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import (
    GREY_WHITE,
    SKELETON,
    LabelScheme,
    scheme_from_dict,
)

# Names of options in files: dataset_description.json, sidecars, runs and bundles.
IN_FILES = {"resampling": "method", "fold_labels": "folds", "outside_class": "off_mask"}


@dataclass(frozen=True)
class Preparation:
    """Options of preparing every volume of a cohort, the crop excepted.

    Attributes are those of `PreprocessOptions`, but schemes are read, and a voxel size of None is
    that of the input, or a factor of it.
    """

    scheme: LabelScheme
    voxel_size: float | None
    resampling: Resampling = PreprocessOptions.resampling
    mirror_right: bool = PreprocessOptions.mirror_right
    factor: int | None = PreprocessOptions.factor
    space: Space = PreprocessOptions.space
    hull: Hull = PreprocessOptions.hull
    thin: bool = PreprocessOptions.thin
    fold_labels: FoldLabels = PreprocessOptions.fold_labels
    pair: LabelScheme | None = None
    whole_brain: bool = PreprocessOptions.whole_brain

    def for_second_volume(self) -> "Preparation":
        """Return the preparation of a second volume that comes without its first."""
        assert self.pair is not None
        own: dict[str, Any] = {"resampling": "nearest", "thin": False, "hull": "keep"}
        return replace(self, scheme=self.pair, pair=None, **own)

    def __post_init__(self) -> None:
        if self.space == "mni" and self.voxel_size is None:
            raise InputError("--space mni needs a --voxel-size in mm: its grid is not the input's")
        if self.hull == "remove" and not self.scheme.is_skeleton:
            raise InputError(f"--hull remove is for skeletons, not for scheme {self.scheme.name!r}")
        if self.voxel_size is not None and not 0 < self.voxel_size < float("inf"):
            raise InputError(f"expected a voxel size above 0 mm, got {self.voxel_size:g}")
        if self.factor is not None and self.factor < 1:
            raise InputError(f"--factor: expected at least 1, got {self.factor}")
        if self.whole_brain and self.mirror_right:
            raise InputError("a whole brain has both sides; --mirror-right is for one")
        if self.pair is not None and (not self.pair.stem or self.pair.stem == self.scheme.stem):
            raise InputError(f"scheme {self.pair.name!r} names no other volume to pair with")

    @property
    def has_hull(self) -> bool:
        """True if a hull, of the highest class, keeps apart what is inside and outside."""
        return self.hull != "remove" and self.scheme.fill != self.scheme.void

    @property
    def checks_folds_on_white(self) -> bool:
        """True if the pair is skeleton and grey-white, where no fold may lie on white matter."""
        stems = (self.scheme.stem, self.pair.stem if self.pair else "")
        return stems == (SKELETON.stem, GREY_WHITE.stem)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types, under the names that files have for them."""
        return {
            **{IN_FILES.get(own.name, own.name): getattr(self, own.name) for own in fields(self)},
            "scheme": self.scheme.as_dict(),
            "pair": None if self.pair is None else self.pair.as_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Preparation":
        """Inverse of `as_dict`; what a file does not know has its default."""
        keys = {own.name: IN_FILES.get(own.name, own.name) for own in fields(cls)}
        known = {name: content[key] for name, key in keys.items() if key in content}
        pair = content.get("pair")
        return cls(
            **{
                **known,
                "scheme": scheme_from_dict(content["scheme"]),
                "pair": None if pair is None else scheme_from_dict(pair),
            }
        )
