"""One page a brain: where it has fewer folds than healthy brains, written for a neuroradiologist.

Everything is read from the folder that `foldnorm score --maps` has written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import (
    BOTH_SIDES,
    PAGE_ARRAYS,
    PAGES_SIDECAR,
    REGIONS,
    SCORES,
    SCORES_SIDECAR,
)
from foldnorm.pipeline.report.brain_page_figures import PagePictures
from foldnorm.pipeline.report.layers import labels_layer, share_layer, viewer
from foldnorm.pipeline.report.page_files import PageArrays
from foldnorm.preprocessing.cohort.cohort import row_key
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import UNKNOWN_CELLS, number, read_json, read_tsv
from foldnorm.preprocessing.io.volumes import nifti_bytes

N_PAGES = 20
MAX_SITES = 6  # that are named
SIDES = {"L": "left hemisphere", "R": "right hemisphere"}
NO_MODEL = "void"
METHODS = {  # by the beginning of the names of the scores that the maps are of
    "void": "Each place is judged by its distance to the nearest fold or to the surface of the "
    "hemisphere, less what its other folds lead to expect there.",
    "evidence": "A network that has learned from healthy brains says where it expects a fold that "
    "is not there.",
    "latent_map": "A network that has learned to tell healthy folding from folding with folds "
    "erased says how far each place, a block of voxels, is from healthy.",
    "shortfall": "A network that has learned how healthy brains go on says how much of sulci it "
    "expects around each place, given all that lies farther off, and how much less there is.",
}


@dataclass(frozen=True)
class PageChoice:
    """Choice of the brains of a folder of scores that get a page.

    Attributes:
        at_most: so many, those with the smallest p first.
        brains: ``sub-…`` or ``sub-…_hemi-…``; if any is given, these and no others.
    """

    at_most: int = N_PAGES
    brains: tuple[str, ...] = ()


def brain_pages(path: Path, choice: PageChoice) -> list[dict[str, Any]]:
    """Pages of the brains of a folder of scores; none where it has no maps.

    Brains come in the order of their p, those with a larger region first among equals, and brains
    without a p-value (flagged, or healthy ones that others are compared with) last.

    Raises:
        InputError: a brain that was asked for has no page.
    """
    if not (path / PAGES_SIDECAR).is_file():
        if choice.brains:
            raise InputError(f"no pages of brains; score again with --maps: {path}")
        return []
    about, scores = read_json(path / PAGES_SIDECAR), read_json(path / SCORES_SIDECAR)
    regions: dict[str, list[dict[str, str]]] = {}
    for row in read_tsv(path / REGIONS):
        regions.setdefault(row_key(row), []).append(row)
    rows = [row for row in read_tsv(path / SCORES) if row_key(row) in about["brains"]]
    rows = _chosen(rows, about["score"], regions, choice, path)
    both = read_tsv(path / BOTH_SIDES) if (path / BOTH_SIDES).is_file() else []
    joined = {row["participant_id"]: _both_sides(row, about["score"], scores) for row in both}
    return [
        _page(path, row, about, scores, regions[row_key(row)])
        | {"both_sides": joined.get(row["participant_id"])}
        for row in rows
    ]


def _chosen(
    rows: Sequence[dict[str, str]],
    score: str,
    regions: Mapping[str, Sequence[Mapping[str, str]]],
    choice: PageChoice,
    path: Path,
) -> list[dict[str, str]]:
    def order(row: Mapping[str, str]) -> tuple[float, float]:
        p = number(row, f"p_{score}") if row[f"p_{score}"] else 2.0
        return p, -number(regions[row_key(row)][0], "mass")

    ordered = sorted(rows, key=order)
    if not choice.brains:
        return ordered[: choice.at_most]
    names = {name for row in rows for name in (row_key(row), row["participant_id"])}
    unknown = sorted(set(choice.brains) - names)
    if unknown:
        raise InputError(f"no scored brain with a region is {', '.join(unknown)}: {path}")
    return [r for r in ordered if {row_key(r), r["participant_id"]} & set(choice.brains)]


def _page(
    path: Path,
    row: Mapping[str, str],
    about: Mapping[str, Any],
    scores: Mapping[str, Any],
    regions: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    key = row_key(row)
    own = about["brains"][key]
    arrays = PageArrays.read(path / PAGE_ARRAYS.of(brain=key))
    i, j, k = own["peak"]
    is_mirrored = about["mirror_right"] and row["hemi"] == "R"
    if is_mirrored:  # back to the right side of the head
        arrays, i = arrays.mirrored(), len(arrays.volume) - 1 - i
    pictures = PagePictures(arrays, about, own, (i, j, k))
    name = f"p_{about['score']}"
    has_p = bool(row[name])
    reasons = [row["flag"]] if row["flag"] else []
    if row["used_for"]:
        reasons.append(f"took part in {row['used_for']}")
    return {
        "key": key,
        "title": ", ".join(
            part for part in (row["participant_id"], SIDES.get(row["hemi"], row["hemi"])) if part
        ),
        "facts": {
            "site": own["site"] or "not recorded",
            "scored with": "no model (void)"
            if about["method"] == NO_MODEL
            else Path(about["method"]).name,
            "scored on": about["date"],
        },
        "no_p": "; ".join(reasons),
        "warning": row["warning"],
        "stranger": _stranger(about, own) if has_p else "",  # else the flag may say so already
        "p": number(row, name) if has_p else None,
        "q": number(row, name.replace("p_", "q_", 1)) if has_p else None,
        "smallest_p": scores["smallest_p"],
        "method": METHODS[about["score"].removesuffix("_component")],
        "compared": _compared(about, own),
        "calibrated_on": scores["calibrated_on"],
        "judged": scores["brains"] - scores["flagged"],
        "at_peak": _at_peak(about, own),
        "planes": pictures.planes(),
        "healthy": pictures.healthy() if own["healthy"] else "",
        "healthy_brains": [
            f"{other['key']} ({other['site']})" if other["site"] else other["key"]
            for other in own["healthy"]
        ],
        "is_mirrored": is_mirrored,
        "regions": [_region(region) for region in regions],
        "is_named": any(region["sulcus"] for region in regions),
        "is_both": any(region["direction"] != "missing" for region in regions),
        "space": "MNI" if regions[0]["x_mni"] else "world",
        "viewer": _viewer(arrays, about, (i, j, k), own["largest_z"], is_mirrored),
    }


def _both_sides(
    row: Mapping[str, str], score: str, scores: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Describe what both hemispheres of a person say together; None where that is nothing."""
    has_p = bool(row[f"p_{score}"])
    if not has_p and not row["flag"]:
        return None
    return {
        "p": number(row, f"p_{score}") if has_p else None,
        "q": number(row, f"q_{score}") if has_p else None,
        "side": SIDES[row[f"side_{score}"]].split()[0] if has_p else "",
        "flag": row["flag"],
        "calibrated_on": scores["both_sides_calibrated_on"],
    }


def _compared(about: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Describe the healthy brains that a brain is compared with: number, people and sites."""
    sites = about["healthy_sites"]
    text = (
        f"{counted(own['compared_with'], 'hemisphere')} of healthy brains "
        f"({counted(about['healthy_people'], 'person', 'people')} in all, the family of this brain "
        "left out)"
    )
    if not sites:
        return f"{text}, whose sites are not recorded"
    named = ", ".join(sites[:MAX_SITES])
    more = f" and {len(sites) - MAX_SITES} more" if len(sites) > MAX_SITES else ""
    return f"{text} of site{'s' if len(sites) > 1 else ''} {named}{more}"


def _stranger(about: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Warning that no healthy brain is of this brain's site; empty where that is not known."""
    sites = about["healthy_sites"]
    if own["site"] in UNKNOWN_CELLS or not sites or own["site"] in sites:
        return ""
    return (
        f"This brain is of site {own['site']}, and none of the healthy brains is: what differs "
        "between sites may look like an anomaly"
    )


def _at_peak(about: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Describe the measured and the expected value at the strongest place."""
    unit = f" {about['unit']}" if about["unit"] else ""
    digits = 1 if unit else 2
    return (
        f"{about['quantity']}: {own['value']:.{digits}f}{unit} in this brain, "
        f"{own['expected']:.{digits}f}{unit} in healthy brains on average"
    )


def _region(region: Mapping[str, str]) -> dict[str, Any]:
    """Build a row of the table of regions."""
    suffix = "_mni" if region["x_mni"] else ""
    x, y, z = (number(region, f"{axis}{suffix}") for axis in "xyz")
    return {
        "rank": region["rank"],
        "folds": "fewer" if region["direction"] == "missing" else "more",
        "sulcus": region["sulcus"].replace("_", " ").strip(),
        "share": f"{100 * number(region, 'sulcus_share'):.0f} %"
        if region["sulcus"] and region["sulcus_share"]
        else "",
        "place": ", ".join(str(round(own)) for own in (x, y, z)).replace("-", "−"),
        "mm3": _grouped(number(region, "mm3")),
        "peak_z": f"{number(region, 'peak_z'):.1f}",
        "mass": _grouped(number(region, "mass")),
        "p": f"{number(region, 'p'):.3f}" if region["p"] else "–",
    }


def _grouped(value: float) -> str:
    """Format a whole number with narrow spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def _viewer(
    arrays: PageArrays,
    about: Mapping[str, Any],
    at: Sequence[int],
    largest_z: float,
    is_mirrored: bool,
) -> dict[str, Any]:
    """Classes with the departure over them, opened at the strongest place."""
    affine = np.array(about["affine"])
    if is_mirrored:
        affine = unmirrored(affine, len(arrays.volume))
    z = np.where(arrays.z * (largest_z / 255) >= about["threshold"], arrays.z, 0)
    layers = [
        labels_layer(nifti_bytes(np.ascontiguousarray(arrays.volume), affine)),
        share_layer(z.astype(np.float32), affine),
    ]
    step = {"name": "fewer folds than in healthy brains", "layers": layers}
    return viewer({"": [step]}, about["classes"], {"": at}, radiological=True)


def unmirrored(affine: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Affine of a right hemisphere whose first axis was turned back from left-side order.

    Args:
        affine: (4, 4) of the grid in which it lies on the left.
        side: voxels along the first axis.
    """
    back = np.diag([-1.0, 1.0, 1.0, 1.0])
    back[0, 3] = side - 1
    return np.asarray(np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine @ back)
