"""Fold graphs of Morphologist (``.arg`` with its ``.bck`` buckets), read without BrainVISA.

A graph names each fold and lists its voxels: simple surface, bottom line and other voxels of the
fold itself; junctions with other folds or the hull and *plis de passage* of its relations. Voxels
are counted in AIMS order: the RAS+ array of this package reversed on all three axes.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError

Points = NDArray[np.int16]  # (n, 3) voxels in AIMS order
RelationKind = Literal["junction", "hull_junction", "plidepassage"]
RELATIONS: tuple[RelationKind, ...] = ("junction", "hull_junction", "plidepassage")

_RELATION_WORDS = [[kind] for kind in RELATIONS]
BRAINVISA = "brainvisa"  # vocabulary of its names
UNKNOWN = "unknown"  # what a graph without manual names calls every fold
HEADER = "# graph"
BUCKET_MAGIC = b"binarDCBAVOID"
MAX_SIDE = 4096  # voxels; a wrong number must not allocate terabytes
NO_POINTS: Points = np.empty((0, 3), dtype=np.int16)

# Values of the skeleton rebuilt from a graph, as the lab's tools write them.
OTHER, SURFACE, BOTTOM, JUNCTION, HULL_JUNCTION, PLI_DE_PASSAGE = 100, 60, 30, 110, 35, 120
# Fold labels: the k-th fold (from 1) has k + these.
SURFACE_LABEL, PLI_DE_PASSAGE_LABEL, JUNCTION_LABEL, BOTTOM_LABEL = 1000, 5000, 6000, 7000


@dataclass(frozen=True)
class GraphFold:
    """Fold: one node of a fold graph.

    Attributes:
        number: from 1, in the order of the file; fold labels count it.
        node: id in the file, by which relations name it.
        label: sulcus name by automatic recognition; empty if there is none.
        name: sulcus name by hand; ``unknown`` in automatic graphs.
        attributes: everything the file says of it, as text.
        surface: its simple surface.
        bottom: its bottom line.
        other: its other voxels.
    """

    number: int
    node: int
    label: str
    name: str
    attributes: dict[str, str] = field(repr=False)
    surface: Points = field(repr=False)
    bottom: Points = field(repr=False)
    other: Points = field(repr=False)

    @property
    def sulcus(self) -> str:
        """The name by hand where there is one, the automatic one otherwise."""
        return self.name if self.name not in ("", UNKNOWN) else (self.label or UNKNOWN)


@dataclass(frozen=True)
class Relation:
    """One edge of the graph that has voxels.

    Attributes:
        kind: ``junction`` and ``plidepassage`` join two folds, ``hull_junction`` fold and hull.
        nodes: ids of both ends.
        points: its voxels.
    """

    kind: RelationKind
    nodes: tuple[int, int]
    points: Points = field(repr=False)


@dataclass(frozen=True)
class FoldGraph:
    """Fold graph of one hemisphere.

    Attributes:
        path: of the ``.arg`` file.
        attributes: of the hemisphere, as text.
        shape: sides of the grid in voxels, AIMS order; as far as the graph knows it.
        voxel_size: mm.
        folds: in the order of the file.
        relations: in the order of the file.
    """

    path: Path
    attributes: dict[str, str] = field(repr=False)
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    folds: tuple[GraphFold, ...] = field(repr=False)
    relations: tuple[Relation, ...] = field(repr=False)

    def relations_of(self, fold: GraphFold) -> list[Relation]:
        """Relations of which ``fold`` is one end."""
        return [relation for relation in self.relations if fold.node in relation.nodes]


def read_graph_header(path: Path) -> dict[str, str]:
    """Attributes of the hemisphere, as text, without folds and buckets."""
    return _header(_blocks(path), path)


def read_fold_graph(path: Path) -> FoldGraph:
    """Read a ``.arg`` file and its buckets.

    Raises:
        InputError: missing, cut, or not a fold graph; the message names the file.
    """
    blocks = list(_blocks(path))
    header = _header(blocks, path)
    buckets = _Buckets(path, header)
    folds: list[GraphFold] = []
    relations: list[Relation] = []
    for words, attributes in blocks:
        if words[:2] == ["NODE", "fold"]:
            folds.append(_fold(words, attributes, len(folds) + 1, buckets, path))
        elif words[0] == "UEDGE" and words[1:2] in _RELATION_WORDS:
            relations.append(_relation(words, attributes, buckets, path))
    highest = _numbers(header, "boundingbox_max", path)
    i, j, k = (int(n) + 1 for n in highest)
    if not all(1 <= side <= MAX_SIDE for side in (i, j, k)):
        raise InputError(f"boundingbox_max {header['boundingbox_max']!r} is absurd: {path}")
    x, y, z = _numbers(header, "voxel_size", path)
    if min(x, y, z) <= 0:
        raise InputError(f"expected a voxel_size above 0, got {header['voxel_size']!r}: {path}")
    return FoldGraph(path, header, (i, j, k), (x, y, z), tuple(folds), tuple(relations))


def read_buckets(path: Path) -> dict[int, Points]:
    """Read a ``.bck`` file: bucket number → its voxels.

    Layout, little endian: ``binar``, ``DCBA``, uint32 4, ``VOID``, 4 float32 voxel sizes, uint32
    number of buckets; each bucket: uint32 id, uint32 n, n × 3 int16.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"not readable ({error.strerror}): {path}") from error
    if content[:9] + content[13:17] != BUCKET_MAGIC:
        raise InputError(f"not a bucket file (begins with {content[:9]!r}): {path}")
    buckets: dict[int, Points] = {}
    try:
        (count,) = struct.unpack_from("<I", content, 33)
        place = 37
        for _ in range(count):
            number, length = struct.unpack_from("<II", content, place)
            place += 8
            points = np.frombuffer(content, "<i2", 3 * length, place).reshape(length, 3)
            buckets[number] = points.astype(np.int16, copy=False)
            place += 6 * length
    except (struct.error, ValueError) as error:
        raise InputError(f"truncated bucket file ({len(content)} bytes): {path}") from error
    if place != len(content):
        raise InputError(f"{len(content) - place} bytes too many in bucket file: {path}")
    return buckets


def graph_skeleton(
    graph: FoldGraph, shape: tuple[int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Rebuild the skeleton without its hull, (I, J, K) in AIMS order; 0 where there is none.

    Where voxels are shared the later wins: junctions, hull junctions, plis de passage, then for
    each fold its other voxels, simple surface and bottom line.
    """
    volume = np.zeros(shape or graph.shape, dtype=np.uint8)
    values = {"junction": JUNCTION, "hull_junction": HULL_JUNCTION, "plidepassage": PLI_DE_PASSAGE}
    for kind, value in values.items():
        for relation in graph.relations:
            if relation.kind == kind:
                _paint(volume, relation.points, value, graph)
    for fold in graph.folds:
        _paint(volume, fold.other, OTHER, graph)
        _paint(volume, fold.surface, SURFACE, graph)
        _paint(volume, fold.bottom, BOTTOM, graph)
    return volume


def graph_fold_labels(
    graph: FoldGraph, shape: tuple[int, int, int] | None = None
) -> NDArray[np.uint16]:
    """Label each voxel of `graph_skeleton` by its fold, (I, J, K) uint16 in AIMS order.

    The k-th fold (from 1) gives its simple surface 1000 + k, other voxels k, bottom 7000 + k,
    junctions 6000 + k (of the first incident fold), plis de passage 5000 + k.
    """
    volume = np.zeros(shape or graph.shape, dtype=np.uint16)
    number = {fold.node: fold.number for fold in graph.folds}
    bases = {
        "junction": JUNCTION_LABEL,
        "hull_junction": JUNCTION_LABEL,
        "plidepassage": PLI_DE_PASSAGE_LABEL,
    }
    for kind, base in bases.items():
        for relation in graph.relations:
            if relation.kind == kind:
                fold_number = next((number[n] for n in relation.nodes if n in number), 0)
                _paint(volume, relation.points, base + fold_number, graph)
    for fold in graph.folds:
        _paint(volume, fold.other, fold.number, graph)
        _paint(volume, fold.surface, SURFACE_LABEL + fold.number, graph)
        _paint(volume, fold.bottom, BOTTOM_LABEL + fold.number, graph)
    return volume


def graph_fold_numbers(
    graph: FoldGraph, shape: tuple[int, int, int] | None = None
) -> NDArray[np.uint16]:
    """Return the number of the fold, from 1, at each voxel of `graph_skeleton`.

    All parts of a fold have its number. Junctions and plis de passage go to their first fold.
    """
    if len(graph.folds) >= SURFACE_LABEL:
        raise InputError(f"more than {SURFACE_LABEL - 1} folds in a graph: {graph.path}")
    return graph_fold_labels(graph, shape) % SURFACE_LABEL


class _Buckets:
    """Bucket files of one graph, each read once, when first wanted."""

    def __init__(self, path: Path, header: dict[str, str]) -> None:
        # The folder's name follows the graph's; what the graph says of it is stale after a rename.
        self.folder, self.arg = path.with_suffix(".data"), path
        if not self.folder.is_dir() and "filename_base" in header:
            self.folder = path.parent / Path(header["filename_base"]).name
        self.files: dict[str, dict[int, Points]] = {}

    def points(self, kind: str, attributes: dict[str, str]) -> Points:
        """Bucket that ``<kind>_label`` names; no points if there is no such attribute."""
        number = attributes.get(f"{kind}_label")
        if number is None:
            return NO_POINTS
        if kind not in self.files:
            self.files[kind] = read_buckets(self.folder / f"{kind}_Bucket.bck")
        try:
            return self.files[kind][int(number)]
        except (KeyError, ValueError):
            raise InputError(
                f"no bucket {number!r} in {kind}_Bucket.bck, of which the graph speaks: {self.arg}"
            ) from None


def _header(blocks: Iterable[tuple[list[str], dict[str, str]]], path: Path) -> dict[str, str]:
    kind, header = next(((k, a) for k, a in blocks if k[:1] == ["GRAPH"]), ([], {}))
    if kind != ["GRAPH", "CorticalFoldArg"]:
        raise InputError(f"not a fold graph (no GRAPH CorticalFoldArg): {path}")
    return header


def _fold(
    words: list[str], attributes: dict[str, str], number: int, buckets: _Buckets, path: Path
) -> GraphFold:
    return GraphFold(
        number,
        _integer(words[2:3], path),
        attributes.get("label", ""),
        attributes.get("name", UNKNOWN),
        attributes,
        buckets.points("ss", attributes),
        buckets.points("bottom", attributes),
        buckets.points("other", attributes),
    )


def _relation(
    words: list[str], attributes: dict[str, str], buckets: _Buckets, path: Path
) -> Relation:
    kind: RelationKind = words[1]  # type: ignore[assignment]  # one of RELATIONS, just checked
    bucket = "plidepassage" if kind == "plidepassage" else "junction"
    nodes = _integer(words[2:3], path), _integer(words[3:4], path)
    return Relation(kind, nodes, buckets.points(bucket, attributes))


def _blocks(path: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Blocks of an ``.arg`` file: the words after ``*BEGIN``, and key → value of its lines.

    The block of the graph ends where its first node begins.
    """
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise InputError(f"not readable ({error.strerror}): {path}") from error
    if not lines or not lines[0].startswith(HEADER):
        raise InputError(f"not a fold graph (does not begin with {HEADER!r}): {path}")
    words: list[str] = []
    attributes: dict[str, str] = {}
    depth = 0
    for line in lines[1:]:
        if line.startswith("*BEGIN "):
            if words:
                yield words, attributes
            words, attributes = line.split()[1:], {}
            depth += 1
        elif line.startswith("*END"):
            if words:
                yield words, attributes
            words, attributes = [], {}
            depth -= 1
        elif words and line.strip():
            key, _, value = line.partition(" ")
            attributes[key] = value.strip()
    if depth:
        raise InputError(f"truncated fold graph (a block has no *END): {path}")


def _paint(volume: NDArray[np.generic], points: Points, value: int, graph: FoldGraph) -> None:
    if not len(points):
        return
    if points.min() < 0 or (points >= np.array(volume.shape)).any():
        raise InputError(
            f"a voxel of the graph lies outside its grid of {volume.shape} voxels: {graph.path}"
        )
    volume[tuple(points.T.astype(np.intp))] = value


def _numbers(attributes: dict[str, str], key: str, path: Path) -> tuple[float, float, float]:
    try:
        x, y, z = (float(word) for word in attributes[key].split())
    except (KeyError, ValueError):
        raise InputError(
            f"expected three numbers as {key}, got {attributes.get(key)!r}: {path}"
        ) from None
    if not np.isfinite([x, y, z]).all():
        raise InputError(f"expected finite numbers as {key}, got {attributes[key]!r}: {path}")
    return x, y, z


def _integer(words: list[str], path: Path) -> int:
    try:
        return int(words[0])
    except (IndexError, ValueError):
        raise InputError(f"a node or relation of the graph has no number: {path}") from None
