"""Options of preprocessing, as they are given: the one place of their names, defaults and help.

The command line is made of this module, so it imports no heavy library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from foldnorm.preprocessing.cohort.split import DEFAULT_FRACTIONS
from foldnorm.preprocessing.core.choices import (
    FoldLabels,
    Hemi,
    Hull,
    Orientation,
    Resampling,
    Rule,
    Space,
    choices_of,
)
from foldnorm.preprocessing.core.errors import InputError


def flag(name: str) -> str:
    """Return the flag of an option on the command line."""
    return f"--{name.replace('_', '-')}"


# Groups of the help in which flags stand.
SELECTION, EACH = {"group": "selection"}, {"group": "each volume"}
COHORT, MACHINES = {"group": "the cohort"}, {"group": "many machines"}


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """Options of preprocessing label volumes, as they are given.

    Each is an argument of `foldnorm.preprocess` and a flag of ``foldnorm preprocess``
    (``voxel_size``, ``--voxel-size``), whose help is what stands here. Files are named;
    `CohortPlan` has what they hold.

    Attributes:
        participant_label: restrict to these participants
        hemi: restrict to these hemispheres
        prefer: acquisitions, analyses or fold sessions to prefer to others
        qc: table of quality control: who has qc 0 or fail in it is left out
        scheme: label scheme: skeleton, binary-skeleton, grey-white, or a YAML file
        rule: rule of discretisation (default: that of the scheme)
        voxel_size: voxel size in mm, or native
        factor: number of voxels a side of blocks that become one, instead of a voxel size
        resampling: method of downsampling
        space: space of the grid: native, or mni, the ICBM2009c grid, by the transform that lies
            beside each volume
        hull: keep or remove the hull of raw skeletons: exactly where a fold graph tells, else what
            touches the outside
        assume: directions in which voxels run where a header does not say: right, anterior,
            superior (ras) or left, anterior, superior (las); such volumes are refused otherwise
        thin: thin sheets to one voxel after downsampling
        fold_labels: label folds by the label volume or fold graph that goes with the skeleton, if
            there is one (auto), or not (none)
        mirror_right: store right hemispheres in left-side order
        whole_brain: put both hemispheres of a subject in one volume
        pair: label scheme of a second volume of each hemisphere, on the very same grid
            (grey-white for skeletons)
        crop: box to cut out: cohort[@MM], the smallest box that holds every volume, and MM around
            it (room for those of --layout-from); none; region:NAME[+NAME…][@MM], mask:FILE[@MM],
            box:i0,i1,j0,j1,k0,k1 or mm:x0,x1,y0,y1,z0,z1
        regions: YAML file of regions: names, lists of sulci
        mix_origins: allow volumes of different makers (Morphologist, foldnorm), and names of folds
            of different vocabularies, in one cohort
        outside_class: class to give voxels outside the region's mask
        pad: padding: none, cubic, multiple:N or I,J,K
        layout_from: cohort, exported model or saved scorer, exactly as whose volumes these are
            prepared, in the same box; what it fixes need not be given again
        split_fractions: share of participants in each split
        split_seed: random seed of the split
        drop_duplicates: keep the first of a scan that is there under several ids, rather than all
            with a warning
        shard: prepare part I of N only; --finalize packs all
        finalize: prepare nothing: pack what shards have prepared
        n_procs: number of processes
        overwrite: replace what is there already, and fit the box anew
        quiet: no progress bar
    """

    participant_label: tuple[str, ...] = field(default=(), metadata=SELECTION)
    hemi: tuple[Hemi, ...] = field(default=(), metadata=SELECTION)
    prefer: tuple[str, ...] = field(default=(), metadata=SELECTION | {"metavar": "NAME"})
    qc: str | Path | None = field(default=None, metadata=SELECTION | {"metavar": "TABLE"})
    scheme: Path | str = field(default="skeleton", metadata=EACH | {"metavar": "SCHEME"})
    rule: Rule | None = field(default=None, metadata=EACH)
    voxel_size: float | str = field(default=1.0, metadata=EACH)
    factor: int | None = field(default=None, metadata=EACH)
    resampling: Resampling = field(default="sulcus-priority", metadata=EACH)
    space: Space = field(default="native", metadata=EACH)
    hull: Hull = field(default="keep", metadata=EACH)
    assume: Orientation | None = field(default=None, metadata=EACH)
    thin: bool = field(default=False, metadata=EACH)
    fold_labels: FoldLabels = field(default="auto", metadata=EACH)
    mirror_right: bool = field(default=False, metadata=EACH)
    whole_brain: bool = field(default=False, metadata=EACH)
    pair: Path | str | None = field(default=None, metadata=EACH | {"metavar": "SCHEME"})
    crop: str = field(default="cohort", metadata=COHORT)
    regions: str | Path | None = field(default=None, metadata=COHORT | {"metavar": "FILE"})
    mix_origins: bool = field(default=False, metadata=COHORT)
    outside_class: str | None = field(default=None, metadata=COHORT | {"metavar": "CLASS"})
    pad: str = field(default="none", metadata=COHORT)
    layout_from: str | Path | None = field(default=None, metadata=COHORT | {"metavar": "COHORT"})
    split_fractions: tuple[float, float, float] = field(
        default=DEFAULT_FRACTIONS, metadata=COHORT | {"metavar": ("TRAIN", "VALIDATION", "TEST")}
    )
    split_seed: int = field(default=0, metadata=COHORT)
    drop_duplicates: bool = field(default=False, metadata=COHORT)
    shard: str | None = field(default=None, metadata=MACHINES | {"metavar": "I/N"})
    finalize: bool = field(default=False, metadata=MACHINES)
    n_procs: int = 1
    overwrite: bool = False
    quiet: bool = False

    @classmethod
    def from_words(cls, words: Mapping[str, Any]) -> Self:
        """Take options from a command line or a notebook, where a list may stand for a tuple.

        Raises:
            InputError: there is no such option, or it does not suit.
        """
        known = {option.name: option.default for option in fields(cls)}
        unknown = sorted(set(words) - set(known))
        if unknown:
            raise InputError(f"preprocess has no option {unknown[0]!r}")
        values = dict(words)
        for name, word in words.items():
            if isinstance(known[name], tuple):
                values[name] = (word,) if isinstance(word, str) else tuple(word)
        return cls(**values)

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            words, allowed = getattr(self, name), choices_of(kind)
            for word in words if isinstance(words, tuple) else (words,):
                if allowed and word is not None and word not in allowed:
                    expected = " or ".join(allowed)
                    raise InputError(f"{flag(name)}: expected {expected}, got {word!r}")
        if self.factor is not None and self.voxel_size != PreprocessOptions.voxel_size:
            raise InputError("give a voxel size or a factor, not both")
        if self.finalize and self.part is not None:
            raise InputError("--finalize packs all shards; leave --shard out")

    @property
    def part(self) -> tuple[int, int] | None:
        """Number of the part to prepare, from 1, and of how many; None: all is prepared."""
        if self.shard is None:
            return None
        number, _, of = self.shard.partition("/")
        if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
            raise InputError(f"--shard: expected I/N with 1 ≤ I ≤ N, got {self.shard!r}")
        return int(number), int(of)
