"""Plan of a cohort: the options of preprocessing, and what the files that they name hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.layout import Layout, layout_in
from foldnorm.preprocessing.cohort.options import PreprocessOptions, flag
from foldnorm.preprocessing.cohort.preparation import IN_FILES, Preparation
from foldnorm.preprocessing.cohort.split import check_fractions
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.people import read_excluded
from foldnorm.preprocessing.io.schemes import load_scheme
from foldnorm.preprocessing.spatial.crop import pad_shape
from foldnorm.preprocessing.spatial.crop_spec import CropSpec
from foldnorm.preprocessing.spatial.regions import read_regions


@dataclass(frozen=True)
class CohortPlan:
    """Options of a cohort with every file read; of the options, what stands here goes before.

    Attributes:
        options: as they were given.
        preparation: of each volume.
        crop: box to pack.
        pad: padding of the box.
        outside_class: class that what lies off the region's mask becomes.
        frozen: layout of another cohort, to be laid out like it; `crop` and `pad` are then its own.
        excluded: ids to leave out.
    """

    options: PreprocessOptions
    preparation: Preparation
    crop: CropSpec = field(default_factory=CropSpec)
    pad: str = PreprocessOptions.pad
    outside_class: str | None = PreprocessOptions.outside_class
    frozen: Layout | None = None
    excluded: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        names = self.preparation.scheme.names
        if self.outside_class is not None and self.outside_class not in names:
            raise InputError(
                f"--outside-class: expected one of {', '.join(names)}, got {self.outside_class!r}"
            )
        if self.outside_class is not None and self.crop.kind not in ("region", "mask"):
            raise InputError("--outside-class needs a region: --crop region:NAME or mask:FILE")
        check_fractions(self.options.split_fractions)
        pad_shape((1, 1, 1), self.pad)  # refused before the long part, not after it

    @classmethod
    def from_options(cls, options: PreprocessOptions) -> Self:
        """Read the files that options name.

        Raises:
            InputError: one is not what it should be, or the options do not suit each other.
        """
        excluded = frozenset(() if options.qc is None else read_excluded(Path(options.qc)))
        if options.layout_from is not None:
            return cls._laid_out_like(Path(options.layout_from), options, excluded)
        regions = read_regions(None if options.regions is None else Path(options.regions))
        crop = CropSpec.parse(options.crop, regions)
        prepared = _preparation_of(options)
        return cls(options, prepared, crop, options.pad, options.outside_class, excluded=excluded)

    @classmethod
    def _laid_out_like(
        cls, folder: Path, options: PreprocessOptions, excluded: frozenset[str]
    ) -> Self:
        """Take what a cohort, or an exported model, fixes; whether folds are labelled it does not.

        Raises:
            InputError: it is neither, or an option is given that is another there.
        """
        layout = layout_in(folder)
        record = Cohort.describe(layout)["Cohort"]["preparation"]
        _check_given(options, record, folder)
        return cls(
            options,
            replace(Preparation.from_dict(record), fold_labels=options.fold_labels),
            CropSpec.from_record(record),
            record["pad"],
            record["off_mask"],
            Layout.from_cohort(layout),
            excluded,
        )

    def record(self) -> dict[str, Any]:
        """Return everything that must be equal for the volumes of two cohorts to be comparable."""
        return {
            **self.preparation.as_dict(),
            "crop": self.crop.text,
            "regions": {name: list(sulci) for name, sulci in self.crop.regions.items()},
            "off_mask": self.outside_class,
            "pad": self.pad,
        }


def _check_given(options: PreprocessOptions, record: Mapping[str, Any], folder: Path) -> None:
    """Refuse an option that is not that of the cohort to be laid out like; folds are no matter."""
    ours = CohortPlan.from_options(replace(options, layout_from=None))
    asked = {**ours.record(), "rule": ours.preparation.scheme.as_dict()}
    known = {**record, "rule": record["scheme"]}
    for option in fields(options):
        word, key = getattr(options, option.name), IN_FILES.get(option.name, option.name)
        fixed = key in known and option.name not in ("fold_labels", "regions")
        if fixed and word != option.default and asked[key] != known[key]:
            raise InputError(
                f"{flag(option.name)}: {word} is not that of the cohort of --layout-from: {folder}"
            )


def _preparation_of(options: PreprocessOptions) -> Preparation:
    """Read the schemes and the voxel size of a preparation; all else is as it was given."""
    own = {field.name: getattr(options, field.name) for field in fields(Preparation)}
    size = options.voxel_size if options.factor is None else "native"
    try:
        voxel_size = None if size == "native" else float(size)
    except ValueError:
        raise InputError(f"--voxel-size: expected mm or native, got {size!r}") from None
    scheme = load_scheme(str(options.scheme))
    return Preparation(
        **{
            **own,
            "scheme": scheme if options.rule is None else scheme.with_rule(options.rule),
            "voxel_size": voxel_size,
            "pair": None if options.pair is None else load_scheme(str(options.pair)),
        }
    )
