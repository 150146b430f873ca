"""Beginning of a report: what was done and what came out, in the order in which a reader asks.

Everything is taken from the sections that follow it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.files import number

Section = Mapping[str, Any]
ALARM = 0.05  # p of a brain that is called unusual
MAX_NAMED = 3  # brains
MAX_COMPARED = 12  # scores
SHARED = ("baseline", "void")  # scores that every benchmark has
CONTROL = "0"  # size at which nothing was altered
# Why a score finds little, by the beginning of its name.
NOTES = {
    "latent_map": "distances of single places of the code from healthy ones",
    "latent": "distance of the whole code from healthy ones; without training on altered brains, "
    "one that lost a fold moves towards the centre, since there is less to encode",
    "reconstruction": "a model that reconstructs well reconstructs a missing fold as well",
    "void": "distance to the nearest fold; no training",
    "evidence": "where a trained network expects a fold that is not there",
    "sulc": "by the names of sulci",
    "baseline": "a trivial baseline",
}


def answers(sections: Sequence[Section]) -> list[tuple[str, list[str]]]:
    """Answer a reader's first questions, each in sentences; without those that nothing answers."""
    asked = {
        "What is this?": [_cohort(own) for own in _of(sections, "cohort")],
        "Did it work?": _problems(sections),
        "Which brains are unusual?": [_unusual(own) for own in _of(sections, "scores")],
        "Where?": [text for own in _of(sections, "scores") for text in _place(own)],
        "How sure is that?": [_certainty(own) for own in _of(sections, "benchmark")],
    }
    return [(question, texts) for question, texts in asked.items() if texts]


def compared_scores(sections: Sequence[Section]) -> dict[str, Any]:
    """Join benchmarks of one kind of alteration: a row a score, the best ones first.

    Returns:
        ``sizes``, ``unit`` and ``rows`` of (score, folder, row of ``benchmark.tsv`` by size, note);
        empty where fewer than two benchmarks can be joined.
    """
    benchmarks = _of(sections, "benchmark")
    alike = {(own["facts"]["altered"], tuple(own["sizes"])) for own in benchmarks}
    if len(benchmarks) < 2 or len(alike) > 1:
        return {}
    sizes = benchmarks[0]["sizes"]
    rows: dict[str, tuple[str, str, dict[str, Any], str]] = {}
    for own in benchmarks:
        for score in own["scores"]:
            is_shared = score.startswith(SHARED)
            key = score if is_shared else f"{score} {own['path']}"
            cells = {size: own["cell"][score, size] for size in sizes}
            label = "" if is_shared else own["title"].partition(": ")[2]
            rows.setdefault(key, (score, label, cells, _note(score)))

    def mean_auroc(row: tuple[str, str, dict[str, Any], str]) -> float:
        values = [number(row[2][size], "auroc") for size in sizes if size != CONTROL]
        return sum(values) / max(len(values), 1)

    ordered = sorted(rows.values(), key=mean_auroc, reverse=True)
    return {"sizes": sizes, "unit": benchmarks[0]["unit"], "rows": ordered[:MAX_COMPARED]}


def _of(sections: Sequence[Section], kind: str) -> list[Section]:
    return [section for section in sections if section["kind"] == kind]


def _note(score: str) -> str:
    return next((note for start, note in NOTES.items() if score.startswith(start)), "")


def _cohort(section: Section) -> str:
    facts, name = section["facts"], section["title"].partition(": ")[2]
    what = "synthetic volumes, not brains" if section["phantom"] else "hemispheres or brains"
    altered = section["deletion"]
    end = facts["split"]
    if altered:
        end = f"each altered ({altered['kind']}, size {altered['size']})"
    return f"{name}: {facts['volumes']} {what}, {facts['box']} of {facts['voxel size']}, {end}."


def _problems(sections: Sequence[Section]) -> list[str]:
    texts = []
    for own in _of(sections, "cohort"):
        name = own["title"].partition(": ")[2]
        left_out, flagged = len(own["failed"]), len(own["flagged"])
        if left_out or flagged:
            texts.append(
                f"{name}: {counted(left_out, 'volume')} could not be used, "
                f"{counted(flagged, 'volume')} should be looked at."
            )
        else:
            texts.append(f"{name}: every volume was prepared, and none is conspicuous.")
    for own in _of(sections, "run"):
        name = own["title"].partition(": ")[2]
        facts = own["facts"]
        texts.append(
            f"{name} was trained on {facts['trained on']}; {facts['best checkpoint']} is used."
        )
    return texts


def _unusual(section: Section) -> str:
    name, key = section["title"].partition(": ")[2], section["sorted_by"]
    judged = section["facts"]["with a p-value"]
    low = [row for row in section["rows"] if number(row, key) <= ALARM]
    listed = len(section["rows"])
    at_least = "at least " if len(low) == listed < judged else ""
    named = ", ".join(f"{row['participant_id']} {row['hemi']}" for row in low[:MAX_NAMED])
    who = f", first {named}" if low else ""
    return (
        f"{name}: {at_least}{len(low)} of {counted(judged, 'brain')} with p ≤ {ALARM:g} by "
        f"{key[2:]}{who}; of healthy brains one in {1 / ALARM:.0f} is expected."
    )


def _place(section: Section) -> list[str]:
    """Say where the first brain of a section that has pages departs most."""
    pages = section["pages"]
    if not pages or not pages[0]["regions"]:
        return []
    first = pages[0]["regions"][0]
    near = f" near {first['sulcus']}" if first["sulcus"] else ""
    name = section["title"].partition(": ")[2]
    return [
        f"{name}: {pages[0]['title']} has {first['folds']} folds than healthy brains{near}, at "
        f"({first['place']}) mm; {first['peak_z']} standard deviations from their mean."
    ]


def _certainty(section: Section) -> str:
    name, largest = section["title"].partition(": ")[2], section["sizes"][-1]
    every = section["scores"]
    own = [score for score in every if not score.startswith(SHARED)] or [
        score for score in every if not score.startswith("baseline")
    ]  # void alone, where that is what was tested
    rows = {score: section["cell"][score, largest] for score in every}
    best = max(own, key=lambda score: number(rows[score], "auroc"))
    trivial = [number(rows[s], "auroc") for s in every if s.startswith("baseline")]
    beside = f", the best trivial baseline with {max(trivial):.2f}" if trivial else ""
    row = rows[best]
    return (
        f"{name}: {best} tells brains with {section['facts']['altered'].split(' of each')[0]} "
        f"(over {largest} {section['unit'].partition(' ')[0]}) from healthy ones with AUROC "
        f"{number(row, 'auroc'):.2f} [{number(row, 'auroc_low'):.2f}, "
        f"{number(row, 'auroc_high'):.2f}]{beside}."
    )
