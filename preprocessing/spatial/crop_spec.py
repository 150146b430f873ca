"""Crop that ``--crop`` asks for, and the box that it gives for a cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.spatial.crop import Box
from foldnorm.preprocessing.spatial.regions import Regions

Kind = Literal["cohort", "none", "region", "mask", "box", "mm"]
DEFAULT_MARGIN_MM, MAX_MARGIN_MM = 5.0, 100.0
EXPECTED = (
    "cohort[@MARGIN_MM], none, region:NAME[+NAME…][@MARGIN_MM], mask:FILE[@MARGIN_MM], "
    "box:i0,i1,j0,j1,k0,k1 or mm:x0,x1,y0,y1,z0,z1"
)


@dataclass(frozen=True)
class CropSpec:
    """A crop as the user asks for it.

    Attributes:
        kind: ``cohort``: minimal box that holds every volume, and a margin if one is asked for.
            ``none``: whole field of view. ``region``: box of fold labels in all volumes. ``mask``:
            box of a mask. ``box``: voxels of each volume's own downsampled grid. ``mm``: world
            millimetres (x mirrored for a mirrored hemisphere).
        bounds: the six numbers of ``box`` and ``mm``.
        names: names of regions or folds, or numbers of folds, of ``region``.
        regions: those among ``names`` that are regions, and their sulci.
        mask: file of ``mask``.
        margin: mm around a region, a mask, or what the cohort holds (there 0 unless given).
        text: as the user wrote it.
    """

    kind: Kind = "cohort"
    bounds: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    regions: Regions = field(default_factory=dict)
    mask: Path | None = None
    margin: float = 0.0
    text: str = "cohort"

    @classmethod
    def parse(cls, text: str, regions: Regions | None = None) -> "CropSpec":
        """Read the value of ``--crop``.

        Args:
            text: the value.
            regions: regions that may be named, and their sulci.

        Example:
            >>> spec = CropSpec.parse("region:central+S.T.s.@3")
            >>> spec.kind, spec.names, spec.margin
            ('region', ('central', 'S.T.s.'), 3.0)
            >>> CropSpec.parse("cohort@6").margin
            6.0
        """
        kind, _, rest = text.partition(":")
        try:
            if text == "none":
                return cls("none", text=text)
            if text.startswith("cohort"):
                what, mm = _split_margin(text, 0.0)
                if what == "cohort":
                    return cls("cohort", margin=mm, text=text)
            if kind in ("region", "mask") and rest:
                what, mm = _split_margin(rest, DEFAULT_MARGIN_MM)
                if kind == "mask":
                    return cls("mask", mask=Path(what), margin=mm, text=text)
                names = tuple(what.split("+"))
                used = {name: sulci for name, sulci in (regions or {}).items() if name in names}
                return cls("region", names=names, regions=used, margin=mm, text=text)
            if kind in ("box", "mm"):
                bounds = tuple(float(number) for number in rest.split(","))
                if len(bounds) == 6:
                    return cls("box" if kind == "box" else "mm", bounds, text=text)
        except InputError:
            raise
        except ValueError:
            pass
        raise InputError(f"--crop: expected {EXPECTED}; got {text!r}")

    @classmethod
    def from_record(cls, preparation: Mapping[str, Any]) -> "CropSpec":
        """Read the crop of a cohort from its preparation record."""
        regions = {name: tuple(sulci) for name, sulci in preparation["regions"].items()}
        return cls.parse(preparation["crop"], regions)

    @property
    def may_cut(self) -> bool:
        """True if voxels outside the box are left out on purpose."""
        return self.kind in ("region", "mask", "box", "mm")

    def labels(self, fold_names: Mapping[int, str], *, must_exist: bool = True) -> set[int]:
        """Fold labels of a ``region``, from names or numbers.

        A sulcus of Morphologist may be named with its side (``S.C._left``) or without (``S.C.``).
        Where a fold and a region share a name, the fold is meant.

        Args:
            fold_names: label → name.
            must_exist: refuse a name that no label has; one hemisphere may well lack a sulcus.
        """
        by_name: dict[str, set[int]] = {}
        for label, name in fold_names.items():
            without_side = name.removesuffix("_left").removesuffix("_right")
            for known in {name, without_side}:
                by_name.setdefault(known, set()).add(label)
        labels: set[int] = set()
        for name in self.names:
            if name in by_name:
                labels |= by_name[name]
            elif name in self.regions and not by_name.keys().isdisjoint(self.regions[name]):
                labels |= set().union(*(by_name.get(s, set()) for s in self.regions[name]))
            elif name.isdigit():
                labels.add(int(name))
            elif must_exist:
                known = ", ".join(sorted(by_name)[:30]) or "none; no fold has a name"
                raise InputError(f"--crop: no fold or region is named {name!r}; folds: {known}")
        return labels

    def fixed_box(self, voxel_size: Sequence[float]) -> Box:
        """Box of ``box`` (in a volume's own grid) or ``mm`` (on the lattice)."""
        sides = voxel_size if self.kind == "mm" else (1.0, 1.0, 1.0)
        low = [round(b / s) for b, s in zip(self.bounds[::2], sides, strict=True)]
        high = [round(b / s) for b, s in zip(self.bounds[1::2], sides, strict=True)]
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _split_margin(text: str, default: float) -> tuple[str, float]:
    """Split ``WHAT@MARGIN_MM``; the margin is ``default`` where none is given.

    Raises:
        InputError: it is negative or too large.
        ValueError: it is no number.
    """
    what, _, margin = text.rpartition("@") if "@" in text else (text, "", "")
    mm = float(margin) if margin else default
    if not 0 <= mm <= MAX_MARGIN_MM:
        raise InputError(f"--crop: a margin is 0 to {MAX_MARGIN_MM:g} mm, got {mm:g}")
    return what, mm
