"""Volumes that no cohort may take unnoticed: of two makers, of one scan twice, odd ones."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from foldnorm.preprocessing.cohort.duplicates import SameScan
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.cohort.prepared_index import PreparedVolume
from foldnorm.preprocessing.cohort.quality import QC_TABLE
from foldnorm.preprocessing.cohort.records import participant_row, split_unit
from foldnorm.preprocessing.core.counts import counted, listed
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_sidecar import FOLD_NAMES
from foldnorm.preprocessing.io.names import bids_label


def refuse_mixed(origins: Sequence[str]) -> None:
    """Refuse volumes of different makers.

    Raises:
        InputError: there are several; it says how many of each.
    """
    counts = Counter(origins)
    if len(counts) > 1:
        shown = ", ".join(f"{number} {origin}" for origin, number in sorted(counts.items()))
        raise InputError(
            f"volumes of different origin ({shown}): their counts differ systematically; "
            "--mix-origins takes them all the same"
        )


def refuse_mixed_names(vocabularies: Iterable[str]) -> None:
    """Refuse volumes whose folds have names of different vocabularies.

    Args:
        vocabularies: of each volume; empty where its folds have no names.

    Raises:
        InputError: there are several; it says how many of each.
    """
    if said := mixed_names_warnings(vocabularies):
        raise InputError(
            f"{said[0]}; --fold-labels none takes them without folds, --mix-origins all the same"
        )


def mixed_names_warnings(vocabularies: Iterable[str]) -> list[str]:
    """Say that folds have names of different vocabularies, if they have: at most one line."""
    counts = Counter(vocabulary for vocabulary in vocabularies if vocabulary)
    if len(counts) < 2:
        return []
    shown = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    return [f"volumes whose folds have names of different vocabularies ({shown})"]


def vocabularies_of(volumes: Sequence[PreparedVolume], of_source: Mapping[int, str]) -> list[str]:
    """Vocabulary of each volume; what names labels for the whole source is one of its own."""
    return [volume.fold_vocabulary or (FOLD_NAMES if of_source else "") for volume in volumes]


def first_of_each_scan(
    volumes: list[PreparedVolume], scans: Sequence[SameScan], options: PreprocessOptions
) -> tuple[list[PreparedVolume], list[str]]:
    """Leave out whoever is of the scan of somebody before, if that is asked for."""
    dropped: list[str] = []
    for scan in scans if options.drop_duplicates else ():
        if scan.first not in dropped and scan.second not in dropped:
            dropped.append(scan.second)
    kept = [v for v in volumes if bids_label(v.sidecar["Participant"]) not in dropped]
    return kept, dropped


def scan_warnings(
    volumes: list[PreparedVolume], scans: Sequence[SameScan], options: PreprocessOptions
) -> list[str]:
    """Say which scans are there twice, and how they are kept out of two splits."""
    by_id = {bids_label(volume.sidecar["Participant"]): volume for volume in volumes}
    warnings = []
    for scan in scans:
        sides = "".join(f"{hemi}, " for hemi in scan.hemis if hemi)
        what = f"sub-{scan.first} and sub-{scan.second} are of the same scan ({sides}Dice "
        what += f"{scan.overlap:.2f})"
        left_out = [f"sub-{name}" for name in (scan.first, scan.second) if name not in by_id]
        if left_out:
            warnings.append(f"{what}; left out: {', '.join(left_out)}")
            continue
        first, second = by_id[scan.first], by_id[scan.second]
        if split_unit(first) == split_unit(second):
            continue
        splits = [participant_row(volume, options)["split"] for volume in (first, second)]
        where = " and ".join(splits) if splits[0] != splits[1] else f"{splits[0]}, by chance"
        warnings.append(
            f"{what}, in {where}: they leak through a split; "
            f"{_remedy(first, second)}, or --drop-duplicates"
        )
    return warnings


def _remedy(first: PreparedVolume, second: PreparedVolume) -> str:
    """Say which line of a table would put two participants into one family."""
    family, other = (volume.sidecar["Known"].get("family") for volume in (first, second))
    if other and not family:
        first, second, family = second, first, other
    name = second.sidecar["Participant"]
    return (
        f"give sub-{bids_label(name)} the family {family or split_unit(first)} in the source's "
        "participants.tsv or table"
    )


def source_file_warnings(volumes: list[PreparedVolume]) -> list[str]:
    """Say what files say oddly, once for all that do, and how many volumes have any warning."""
    keys: dict[str, list[str]] = {}
    for volume in volumes:
        for line in volume.sidecar.get("FileWarnings", []):
            keys.setdefault(line, []).append(volume.key)
    said = [f"{listed(found)}: {line}" for line, found in keys.items()]
    number = sum(bool(volume.warnings) for volume in volumes)
    if number:
        said.append(f"{counted(number, 'volume')} with warnings of the source, see {QC_TABLE}")
    return said
