"""How well an atlas of sulci tells a hemisphere of another side, a turned and a mirrored one.

ATLAS is of maps (foldnorm atlas), COHORT real hemispheres in MNI space, of both sides. Printed and
written, of the participants whose id begins with sub-CHOSEN (`chosen_on_…`), on whom the bounds of
`foldnorm.pipeline.inference.atlas_labels` and `atlas_orientation` were set, and of all others
(`others_…`):

    hemispheres                    of every --step th of them
    own_least, own_most            mean log likelihood of a fold above what the atlas expects
    turned_most                    the same of those taken for the other side, turned back to front,
                                   and upside down
    mirrored_mean, mirrored_sd     what a hemisphere loses in the mirror image of the other side
    people_1, people_2, …          share of so many people, drawn at random, whose two hemispheres
                                   are found to be mirrored when they are (_found), and when they
                                   are not (_false)

OUT is the file of JSON that is written, with commit, date and machine.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from figures import write_figures

from foldnorm.pipeline.inference.atlas_orientation import MIRRORED, TURNS, gain
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.naming.atlas import SIDES, SulcusAtlas

PEOPLE, DRAWS = (1, 2, 4, 8), 20_000
SIMPLE = [signs for signs in TURNS.values() if signs.count(-1) == 1]


def fits(cohort: Cohort, atlas: SulcusAtlas, step: int) -> list[dict[str, Any]]:
    """Likelihoods of hemispheres of every so many people, as they are and as they should not be."""
    names, rows = AtlasLabeller(atlas, cohort), []
    people = sorted({row["participant_id"] for row in cohort.rows})[::step]
    for index, row in enumerate(cohort.rows):
        if row["participant_id"] not in people:
            continue
        (brain,) = cohort.brains([index])
        named, hemi = names.name(brain), brain.row["hemi"]
        (other,) = set(SIDES) - {hemi}
        own = gain(names, named, hemi, (1, 1, 1))
        turned = [gain(names, named, other, (1, 1, 1))]
        turned += [gain(names, named, hemi, signs) for signs in SIMPLE]
        loss = own - gain(names, named, other, (-1, 1, 1))
        who = brain.row["participant_id"]
        rows.append({"who": who, "own": own, "turned": max(turned), "loss": loss})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def told(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Figures of some hemispheres."""
    own, losses = (np.array([row[key] for row in rows]) for key in ("own", "loss"))
    found: dict[str, float] = {
        "hemispheres": len(rows),
        "own_least": own.min(),
        "own_most": own.max(),
        "turned_most": max(row["turned"] for row in rows),
        "mirrored_mean": losses.mean(),
        "mirrored_sd": losses.std(),
    }
    people = defaultdict(list)
    for row in rows:
        people[row["who"]].append(row["loss"])
    pairs = np.array([of for of in people.values() if len(of) == len(SIDES)])
    rng = np.random.default_rng(0)
    for count in PEOPLE:
        drawn = pairs[rng.integers(0, len(pairs), (DRAWS, count))].reshape(DRAWS, -1)
        sums = drawn.sum(axis=1) / drawn.shape[1] ** 0.5
        found[f"people_{count}_found"] = (-sums < MIRRORED).mean()
        found[f"people_{count}_false"] = (sums < MIRRORED).mean()
    return {key: round(float(value), 3) for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("atlas", type=Path, metavar="ATLAS")
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--chosen", default="MMRR")
    parser.add_argument("--step", type=int, default=1)
    arguments = parser.parse_args()
    rows = fits(Cohort.open(arguments.cohort), SulcusAtlas.open(arguments.atlas), arguments.step)
    chosen = [row for row in rows if row["who"].startswith(f"sub-{arguments.chosen}")]
    others = [row for row in rows if row not in chosen]
    parts = {"chosen_on": told(chosen), "others": told(others)}
    figures = {f"{part}_{key}": value for part, own in parts.items() for key, value in own.items()}
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
