"""Label schemes: which raw values a volume may hold, and which class each becomes.

After discretisation **the class number is the priority**: the highest class wins wherever two
meet, so sulcus-priority downsampling is a maximum.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.choices import Rule
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.yaml_files import read_yaml

RULES: tuple[Rule, ...] = get_args(Rule)
SKELETON_STEM = "skeleton"
MAX_CLASSES = 16  # one-hot channels; more would be a parcellation, not a scheme


@dataclass(frozen=True)
class LabelClass:
    """One class of a scheme.

    Attributes:
        name: as shown to people.
        values: the raw values it stands for; the first is its canonical value.
    """

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class LabelScheme:
    """Raw values → classes, in ascending order of priority.

    Attributes:
        name: of the scheme.
        classes: their position is the class number.
        rule: ``exact``: a value that no class lists is an error. ``topological``: it belongs to
            the highest class (a Morphologist skeleton: 0 inside, 11 outside, anything else is
            sulcus). ``nearest``: it goes to the nearest canonical value, the lower one on a tie
            (the rule that the 2021 study describes; it sends 30, real sulcus, to outside).
        fill: class number of what lies outside the field of view.
        void: class number that a deleted voxel of the highest class takes.
        stem: name of the Morphologist file, as in ``Lskeleton_100206.nii.gz``.
    """

    name: str
    classes: tuple[LabelClass, ...]
    rule: Rule = "exact"
    fill: int = 0
    void: int = 0
    stem: str = ""

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= MAX_CLASSES:
            raise InputError(
                f"scheme {self.name!r}: expected 2 to {MAX_CLASSES} classes, "
                f"got {len(self.classes)}"
            )
        if self.rule not in RULES:
            raise InputError(f"scheme {self.name!r}: rule {self.rule!r} is none of {RULES}")
        values = [value for label in self.classes for value in label.values]
        if len(values) != len(set(values)) or any(not c.values for c in self.classes):
            raise InputError(
                f"scheme {self.name!r}: each class needs a value, and no value two classes"
            )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise InputError(f"scheme {self.name!r}: two classes have the name {twice[0]!r}")
        for key in ("fill", "void"):
            if not 0 <= getattr(self, key) < len(self.classes):
                raise InputError(f"scheme {self.name!r}: {key} names no class")

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def top(self) -> int:
        """Highest class, the one that wins where two meet (sulcus)."""
        return len(self.classes) - 1

    @property
    def is_skeleton(self) -> bool:
        """True if the highest class is of sheets that are one voxel thick."""
        return self.stem == SKELETON_STEM

    def foreground(self, classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Mark classes above `void`: what a deletion can take (sulcus in a skeleton)."""
        return classes > self.void

    def outside(self, classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Mark what lies outside the brain: nothing where the scheme does not tell it from void."""
        return (classes == self.fill) & (self.void != self.fill)

    @property
    def names(self) -> list[str]:
        """Class names by class number."""
        return [label.name for label in self.classes]

    @property
    def canonical_values(self) -> NDArray[np.int64]:
        """First raw value of each class, (n_classes,)."""
        return np.array([label.values[0] for label in self.classes])

    def with_rule(self, rule: Rule) -> "LabelScheme":
        """Return the same classes under another rule."""
        return dataclasses.replace(self, rule=rule)

    def as_dict(self) -> dict[str, Any]:
        """Return what a YAML file of this scheme would hold."""
        return {
            "name": self.name,
            "rule": self.rule,
            "classes": [{"name": c.name, "values": list(c.values)} for c in self.classes],
            "fill": self.names[self.fill],
            "void": self.names[self.void],
            "stem": self.stem,
        }


SKELETON = LabelScheme(
    "skeleton",
    (
        LabelClass("outside", (11,)),
        LabelClass("inside", (0,)),
        # Topological classes of Morphologist; 60, surface point, is by far the commonest.
        # 35, 100, 110 and 120 are those of skeletons rebuilt from a fold graph.
        LabelClass("sulcus", (60, 10, 20, 30, 35, 40, 50, 70, 80, 90, 100, 110, 120)),
    ),
    rule="topological",
    void=1,
    stem=SKELETON_STEM,
)
BINARY_SKELETON = LabelScheme(
    "binary-skeleton",
    (LabelClass("no sulcus", (0, 11)), LabelClass("sulcus", SKELETON.classes[2].values)),
    rule="topological",
    stem=SKELETON_STEM,
)
GREY_WHITE = LabelScheme(
    "grey-white",
    (LabelClass("background", (0,)), LabelClass("grey", (100,)), LabelClass("white", (200,))),
    stem="grey_white",
)
BUILT_IN = {scheme.name: scheme for scheme in (SKELETON, BINARY_SKELETON, GREY_WHITE)}


def load_scheme(name_or_path: str) -> LabelScheme:
    """Return a built-in scheme by name, or read one from a YAML file.

    The file holds ``name``, ``classes`` (a list of ``name`` and ``values``, ascending priority),
    and optionally ``rule``, ``fill`` and ``void`` (class names), ``stem``.

    Example:
        >>> load_scheme("skeleton").names
        ['outside', 'inside', 'sulcus']
    """
    if name_or_path in BUILT_IN:
        return BUILT_IN[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(
            f"scheme {name_or_path!r} is neither a file nor one of {', '.join(BUILT_IN)}"
        )
    content = read_yaml(path, version="1.2")
    try:
        return scheme_from_dict(content)
    except InputError as error:
        raise InputError(f"{error}: {path}") from None


def scheme_from_dict(content: Any) -> LabelScheme:
    """Build a scheme from the mapping that `LabelScheme.as_dict` returns.

    Raises:
        InputError: a key is missing, unknown or of the wrong kind.

    Example:
        >>> scheme_from_dict({"name": "two", "classes": [
        ...     {"name": "rest", "values": [0]}, {"name": "cortex", "values": [3, 42]},
        ... ]}).n_classes
        2
    """
    known = {"name", "rule", "classes", "fill", "void", "stem"}
    if not isinstance(content, dict) or not {"name", "classes"} <= set(content) <= known:
        raise InputError(f"a label scheme holds name, classes and optionally {sorted(known)}")
    try:
        classes = tuple(
            LabelClass(str(c["name"]), tuple(_integer(v) for v in c["values"]))
            for c in content["classes"]
        )
    except (TypeError, KeyError, ValueError):
        classes = ()
    if not classes:
        raise InputError("each class of a label scheme holds name and a list of integers")
    numbers = {label.name: number for number, label in enumerate(classes)}
    for key in ("fill", "void"):
        if str(content.get(key, classes[0].name)) not in numbers:
            raise InputError(f"{key}: {content[key]!r} is none of the classes {list(numbers)}")
    fill = numbers[str(content.get("fill", classes[0].name))]
    void = numbers[str(content.get("void", classes[fill].name))]
    rule = content.get("rule", "exact")
    stem = str(content.get("stem", ""))
    return LabelScheme(str(content["name"]), classes, rule, fill, void, stem)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(value)
    return value
