"""Missing folds of real brains: models trained on phantoms meet them, and models trained on them.

DATA and OUT are those of `real_brains.py`, whose skeletons of 28 hemispheres, template and
stretched phantoms are made first where they are not there. Whole hemispheres in MNI space at 2 mm,
right ones mirrored. Each of their folds over 200 mm² is taken out, one at a time:

1. by restorers trained on 180 phantoms, compared with held-out phantoms, and with the other real
   brains (as a site with controls of its own would);
2. leave-one-brain-out: by restorers of 1. trained on with 18 real hemispheres, moved at random,
   compared with 8 others;
3. the raw skeletons of Morphologist (archi/001, hcp/100206), and those of their fold graphs alone,
   without the hull, by models of 1.

Printed by size: the share of folds without which the score rises (paired), AUROC against the intact
hemispheres of other brains, how often the strongest region hits the fold, how often one of the
first three does; and the domain gap: what intact real brains look like to models of phantoms.
4. A recogniser trained on phantoms names the sulci of archi/001 and hcp/100206; shown beside their
   names by hand (archi) and by Morphologist, and beside the atlas of the phantoms.

OUT keeps everything; what is there is not made again. Ends with one line of JSON.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomaly_statistics import auroc
from real_brains import AUGMENTED, leave_out, prepare, run

from foldnorm.pipeline.class_metrics import sulcus_dice
from foldnorm.pipeline.every_fold import FoldScores, score_every_fold, summary_of
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.scorer import held_out_halves
from foldnorm.pipeline.scoring.baselines import Baselines
from foldnorm.pipeline.scoring.evidence import EvidenceScores
from foldnorm.pipeline.suitability import Suitability
from foldnorm.pipeline.sulci import NamedVolumes, names_of
from foldnorm.pipeline.sulcus_measures import AtlasTemplate, Recognition
from foldnorm.preprocessing.cohort import Cohort, row_key, write_participants
from foldnorm.preprocessing.deletion import SizeRange
from foldnorm.preprocessing.files import read_json, write_json

CPU = torch.device("cpu")
LAYOUT = ["--space", "mni", "--voxel-size", "2", "--mirror-right",
          "--crop", "mm:-76,4,-110,78,-56,86"]  # fmt: skip
KINDS = {"folds": "[folds]", "slabs": "[slabs]"}
SIZES = {"200-500": SizeRange(200, 500), "500-800": SizeRange(500, 800), "800": SizeRange(800)}
SHOWN = ("evidence_top", "evidence_component", "evidence_pooled", "baseline_fewer_voxels",
         "baseline_pca_residual")  # fmt: skip
# What manual and automatic names of Morphologist's graphs are to the phantom's sulci.
NAMES = {
    "lateral_fissure": ("F.C.L.p.", "S.C.sylvian.", "F.C.L.a."),
    "superior_temporal": ("S.T.s.",),
    "central": ("S.C.",),
    "postcentral": ("S.Po.C.sup.", "F.I.P.Po.C.inf."),
    "superior_frontal": ("S.F.sup.",),
    "inferior_frontal": ("S.F.inf.",),
    "precentral_superior": ("S.Pe.C.sup.", "S.Pe.C.inter."),
    "precentral_inferior": ("S.Pe.C.inf.",),
    "intraparietal": ("F.I.P.",),
    "inferior_temporal": ("S.T.i.ant.", "S.T.i.post."),
    "cingulate": ("F.C.M.ant.", "F.C.M.post."),
    "calcarine": ("F.Cal.ant.-Sc.Cal.",),
    "parieto_occipital": ("F.P.O.",),
    "collateral": ("F.Coll.",),
    "subparietal": ("S.s.P.",),
    "orbital": ("S.Or.",),
    "callosal": ("S.Call.",),
}


class Evidence:
    """Evidence and baselines of brains, with `Scorer`'s way to score."""

    def __init__(self, folder: Path, healthy: Cohort, indices: Any, training: Cohort) -> None:
        self.own = EvidenceScores(RunFolder.open(folder).load(CPU), healthy.scheme)
        self.own.fit(lambda: healthy.brains(indices))
        known = training.indices("train")
        self.baselines = Baselines(training.scheme).fit(lambda: volumes(training, known))

    def score(self, brains: Any, look: Any = None) -> dict[str, np.ndarray]:
        """Scores by name."""
        found = self.own.score(brains, look)
        return found | self.baselines.score(lambda: (brain.volume for brain in brains()))


def volumes(cohort: Cohort, indices: Any) -> Any:
    return (brain.volume for brain in cohort.brains(indices))


def prepare_hemispheres(data: Path, out: Path) -> Path:
    """Cohorts of whole hemispheres; ``…_bare`` have no hull."""
    folder = out / "hemispheres"
    sources = {"real": out / "skeletons", "archi": data / "morphologist/archi",
               "hcp": data / "morphologist/hcp"}  # fmt: skip
    for end, more in (("", []), ("_bare", ["--hull", "remove"])):
        own = folder / f"phantoms{end}"
        if not (own / "volumes.npy").is_file():
            run("preprocess", out / "phantoms", own, *LAYOUT, *more, "--split", ".6", ".4", "0")
        for name, source in sources.items():
            if not (folder / f"{name}{end}/volumes.npy").is_file():
                run("preprocess", source, folder / f"{name}{end}", "--like", own,
                    "--split", "0", "0", "1")  # fmt: skip
    return folder


def train(cohort: Path, out: Path, config: str, steps: int, *more: str) -> Path:
    if not (out / "cost.json").is_file():
        run("train", "--config", config, "--cohort", cohort, "--out", out, "--resume", "auto",
            "--device", "cpu", "--training.steps", steps, "--training.validate_every", steps,
            *more)  # fmt: skip
    return out


def restorer(cohort: Path, out: Path, kind: str, steps: int, *more: str) -> Path:
    return train(cohort, out, "restorer", steps, "--model.init_args.edits", KINDS[kind], *more)


def kept(path: Path, make: Callable[[], FoldScores]) -> FoldScores:
    """What ``make()`` gives, made once."""
    if not path.is_file():
        found = make()
        scores = {when: {name: values.tolist() for name, values in getattr(found, when).items()}
                  for when in ("before", "after")}  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"rows": found.rows, **scores})
    read = read_json(path)
    scores = {when: {name: np.array(values) for name, values in read[when].items()}
              for when in ("before", "after")}  # fmt: skip
    return FoldScores(read["rows"], **scores)


def shown(title: str, scores: FoldScores) -> dict[str, float]:
    """Print folds of each size; returns figures of `evidence_top`."""
    figures = {}
    print(f"\n{title}", flush=True)
    intact = {row["volume"]: n for n, row in enumerate(scores.rows)}
    for size, own in SIZES.items():
        part = scores.of(own)
        hit = np.mean([row["hit"] for row in part.rows])
        listed = np.mean([row["rank"] > 0 for row in part.rows])
        print(f"  {size}: {len(part.rows)} folds; strongest region hits {hit:.2f}, one of three "
              f"{listed:.2f}")  # fmt: skip
        for row in summary_of(part):
            if row["score"] not in SHOWN:
                continue
            before = scores.before[row["score"]][list(intact.values())]
            area = auroc(part.after[row["score"]], before)
            print(f"    {row['score']:<26} paired {row['paired']:.2f} [{row['paired_low']:.2f}, "
                  f"{row['paired_high']:.2f}]  AUROC {area:.2f}")  # fmt: skip
            if row["score"] == "evidence_top":
                figures |= {f"paired_{size}": row["paired"], f"auroc_{size}": area}
        figures[f"hit_{size}"] = float(hit)
    return figures


def by_phantoms(folder: Path, kind: str, end: str, steps: int) -> dict[str, float]:
    """Real brains by models of phantoms."""
    phantoms = Cohort.open(folder / f"phantoms{end}")
    model = restorer(phantoms.folder, folder / f"{kind}{end}", kind, steps)
    healthy, unseen = held_out_halves(phantoms)
    figures = {}
    near = Evidence(model, phantoms, healthy, phantoms)
    names = ("real", "archi", "hcp") if not end else ("archi", "hcp")
    for name in names:
        cohort = Cohort.open(folder / f"{name}{end}")
        path = folder / f"scores/{kind}{end}_{name}_among_phantoms.json"
        every = cohort.indices()
        found = kept(path, lambda c=cohort, e=every: score_every_fold(near, c, e, SizeRange(200)))
        title = f"{name}{end}, {kind} of phantoms, compared with phantoms"
        figures |= {f"{kind}{end}_{name}_{k}": v for k, v in shown(title, found).items()}
    if not end:
        real = Cohort.open(folder / "real")
        domain_gap(near, phantoms, unseen, real)
        found = kept(folder / f"scores/{kind}_real_among_real.json",
                     lambda: among_others(model, real, phantoms))  # fmt: skip
        title = f"real, {kind} of phantoms, compared with the other real brains"
        figures |= {f"{kind}_recalibrated_{k}": v for k, v in shown(title, found).items()}
        figures |= {f"{kind}_{k}": v for k, v in asymmetry(model, real, phantoms).items()}
    return figures


def among_others(model: Path, real: Cohort, phantoms: Cohort) -> FoldScores:
    """Every fold of every brain, compared with all other brains."""
    found: FoldScores | None = None
    for brain in sorted({row["participant_id"] for row in real.rows}):
        own = [n for n, row in enumerate(real.rows) if row["participant_id"] == brain]
        others = [n for n in range(len(real.rows)) if n not in own]
        evidence = Evidence(model, real, others, phantoms)
        scores = score_every_fold(evidence, real, own, SizeRange(200))
        found = scores if found is None else found.joined(scores)
    assert found is not None
    return found


def asymmetry(model: Path, real: Cohort, training: Cohort) -> dict[str, float]:
    """Print whether the other hemisphere, mirrored, stands out among those of one side.

    Each brain is compared with that side of all others; it itself is the control.
    """
    own: dict[str, list[float]] = {name: [] for name in SHOWN}
    other: dict[str, list[float]] = {name: [] for name in SHOWN}
    sides = {row_key(row): n for n, row in enumerate(real.rows)}
    brains = sorted({row["participant_id"] for row in real.rows})
    for home, away in (("L", "R"), ("R", "L")):
        for brain in brains:
            others = [sides[f"{name}_hemi-{home}"] for name in brains if name != brain]
            evidence = Evidence(model, real, others, training)
            pair = [sides[f"{brain}_hemi-{side}"] for side in (home, away)]
            found = evidence.score(lambda pair=pair: real.brains(pair))
            for name in SHOWN:
                own[name].append(found[name][0])
                other[name].append(found[name][1])
    print(f"\nthe other hemisphere, mirrored: {len(own[SHOWN[0]])} against as many")
    figures = {}
    for name in SHOWN:
        area = auroc(np.array(other[name]), np.array(own[name]))
        paired = float(np.mean(np.array(other[name]) > np.array(own[name])))
        print(f"  {name:<26} AUROC {area:.2f}, paired {paired:.2f}")
        figures[f"asymmetry_{name}"] = area
    return figures


def domain_gap(evidence: Evidence, phantoms: Cohort, unseen: Any, real: Cohort) -> None:
    """Print what intact real brains look like to a model of phantoms."""
    low = evidence.score(lambda: phantoms.brains(unseen))
    high = evidence.score(lambda: real.brains(real.indices()))
    print("\ndomain gap: intact real brains against unseen phantoms, AUROC and medians")
    for name in SHOWN:
        print(f"  {name:<26} {auroc(high[name], low[name]):.2f}  {np.median(high[name]):.4g} "
              f"against {np.median(low[name]):.4g}")  # fmt: skip
    flags = list(Suitability(phantoms).reasons(real.brains(real.indices())))
    known = [flag for flag in flags if flag]
    print(f"  {len(known)} of {len(flags)} are flagged", *known[:1], sep="; ")


def leave_one_out(folder: Path, kind: str, steps: int) -> dict[str, float]:
    """Every brain by a model of nine others, compared with four others."""
    real = Cohort.open(folder / "real")
    brains = sorted({row["participant_id"] for row in real.rows})
    found: FoldScores | None = None
    for n, brain in enumerate(brains):
        own = folder / "left_out" / brain
        held_out = {brains[(n + k) % len(brains)] for k in range(1, 5)}
        cohort = leave_out(real, brain, brains[(n + 1) % len(brains)], own / "cohort")
        rows = [{**row, "split": "validation" if row["participant_id"] in held_out else
                 row["split"]} for row in cohort.rows]  # fmt: skip
        write_participants(cohort.folder, rows)
        cohort = Cohort.open(cohort.folder)
        model = restorer(cohort.folder, own / kind, kind, steps, *AUGMENTED,
                         "--weights", folder / kind)  # fmt: skip
        evidence = Evidence(model, cohort, cohort.indices("validation"), cohort)
        tested = cohort.indices("test")
        scores = kept(own / f"{kind}.json",
                      lambda e=evidence, c=cohort, t=tested: score_every_fold(
                          e, c, t, SizeRange(200)))  # fmt: skip
        found = scores if found is None else found.joined(scores)
    assert found is not None
    figures = shown(f"real, {kind} of other real brains", found)
    return {f"{kind}_left_out_{k}": v for k, v in figures.items()}


def named(folder: Path, steps: int) -> dict[str, float]:
    """Sulci of real brains as a recogniser of phantoms names them: Dice with their own names."""
    phantoms = Cohort.open(folder / "phantoms")
    model = train(phantoms.folder, folder / "sulci", "recogniser", steps, *AUGMENTED,
                  "--training.batch_size", "2")  # fmt: skip
    recognition = Recognition(RunFolder.open(model).load(CPU), phantoms.scheme)
    atlas = AtlasTemplate(phantoms, recognition.sulci)
    figures = {}
    for name in ("phantoms", "archi", "hcp"):
        cohort = Cohort.open(folder / name)
        indices = held_out_halves(cohort)[0] if name == "phantoms" else cohort.indices()
        own = names_of_graph(cohort, recognition.sulci) if name != "phantoms" else None
        true = own or {n: names_of(NamedVolumes(cohort, recognition.sulci)[n]) for n in indices}
        print(f"\nsulci of {name}, Dice: recogniser, atlas of phantoms")
        dice = {}
        for who, way in (("recogniser", recognition), ("atlas", atlas)):
            brains = zip(indices, way.named(lambda c=cohort, i=indices: c.brains(i)), strict=True)
            dice[who] = np.array(
                [sulcus_dice(b.labels, true[n], len(recognition.sulci)) for n, b in brains]
            )
        for k, sulcus in enumerate(recognition.sulci):
            row = [np.nanmean(dice[who][:, k]) if np.isfinite(dice[who][:, k]).any() else np.nan
                   for who in dice]  # fmt: skip
            print(f"  {sulcus:<36}", *(f"{value:.2f}" for value in row))
        means = {who: float(np.nanmean(values)) for who, values in dice.items()}
        print("  mean", means)
        figures |= {f"sulci_{name}_{who}_dice": value for who, value in means.items()}
    return figures


def names_of_graph(cohort: Cohort, sulci: tuple[str, ...]) -> dict[int, np.ndarray]:
    """Number of the phantom's sulcus at each voxel, by the names of a fold graph."""
    assert cohort.folds is not None
    found = {}
    for n, row in enumerate(cohort.rows):
        numbers = {}
        for fold in cohort.fold_table:
            same = all(fold[key] == row[key] for key in ("participant_id", "hemi"))
            name = fold["name"].removesuffix("_left").removesuffix("_right")
            if same:
                numbers[int(fold["label"])] = next(
                    (k for k, s in enumerate(sulci, 1) if name in NAMES.get(s, ())), 0
                )
        folds = np.array(cohort.folds[n])
        table = np.zeros(int(folds.max()) + 1, np.uint8)
        for label, number in numbers.items():
            if label < len(table):
                table[label] = number
        found[n] = table[folds]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--steps", type=int, nargs=3, default=(800, 200, 600),
                        metavar=("PHANTOMS", "REAL", "SULCI"))  # fmt: skip
    arguments = parser.parse_args()
    out, data = arguments.out.absolute(), arguments.data.absolute()
    out.mkdir(parents=True, exist_ok=True)
    prepare(data, out, arguments.phantoms)
    folder = prepare_hemispheres(data, out)
    of_phantoms, of_real, of_sulci = arguments.steps
    figures = {}
    for kind in KINDS:
        figures |= by_phantoms(folder, kind, "", of_phantoms)
    figures |= by_phantoms(folder, "slabs", "_bare", of_phantoms)
    figures |= leave_one_out(folder, "folds", of_real)
    figures |= named(folder, of_sulci)
    rounded = {name: round(value, 3) for name, value in figures.items()}
    write_json(folder / "figures.json", rounded)
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
