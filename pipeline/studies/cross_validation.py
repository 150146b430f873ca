"""Classifiers tested on every participant, each by a model that was not shown them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from foldnorm.models.noise import seed_of
from foldnorm.pipeline.artifacts import RUN_COST, RUN_DATA
from foldnorm.pipeline.inference.classify import (
    ClassificationResult,
    check_classifier,
    classification_metrics,
    classified_rows,
    true_class,
)
from foldnorm.pipeline.inference.results import Row
from foldnorm.pipeline.runs.config import build_model, resolve_for
from foldnorm.pipeline.runs.devices import choose_device
from foldnorm.pipeline.runs.leakage import refuse_leak
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training.train import train
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of
from foldnorm.preprocessing.core.errors import InputError, Stopped
from foldnorm.preprocessing.core.problems import Problem

VALIDATION = 0.15  # share of the participants of a training that stop it


@dataclass(frozen=True)
class CrossValidationOptions:
    """Options of a cross-validation.

    Attributes:
        folds: parts that participants are put into; each is tested once.
        seed: of the parts.
        overrides: ``--key value`` of the configuration.
        device: to train on.
        quiet: no progress bars.
    """

    folds: int = 5
    seed: int = 0
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    quiet: bool = False


def cross_validate(
    config: str, cohort: Cohort, out: Path, options: CrossValidationOptions
) -> ClassificationResult:
    """Train a classifier for each fold and test it there.

    The splits of the cohort are left aside. Finished trainings of ``out`` are not made again, and
    unfinished ones go on.

    Args:
        config: YAML file or shipped name of a classifier.
        cohort: of images or label volumes.
        out: folder of the runs, ``fold-N``.
        options: how.

    Returns:
        Predicted classes of all volumes, each by a model that was not shown them.

    Raises:
        InputError: the model is not a classifier, there are too few participants, or ``out`` has
            trainings with other folds.
        Stopped: a signal came, and the state of the training is saved; the same call goes on.
    """
    resolved = resolve_for(cohort, config, options.overrides)
    target = check_classifier(build_model(resolved["model"])).target
    known = [row for row in cohort.rows if true_class(row, target)]
    fold_of = assign_folds(known, target, options.folds, options.seed)
    rows: list[Row] = []
    levels: tuple[str, ...] = ()
    accuracies, failed = [], list[Problem]()
    for number in range(options.folds):
        part = split_for_fold(cohort, fold_of, number, options.seed)
        folder = out / f"fold-{number}"
        own = resolve_for(part, config, options.overrides)
        if (folder / RUN_DATA).is_file():  # of an earlier call, perhaps with other folds
            tested_ids = (name for name, own_fold in fold_of.items() if own_fold == number)
            refuse_leak(RunFolder(folder).trained_on(tested_ids), f"fold {number}", folder)
        if not (folder / RUN_COST).is_file():
            code = train(own, part, folder, device=options.device, resume=True, quiet=options.quiet)
            if code:
                raise Stopped(code)
        run = RunFolder.open(folder)
        run.check_model(own["model"])
        trained = run.load(choose_device(options.device))
        (column,) = trained.conditions.columns
        levels = tuple(sorted(set(levels) | set(column.levels)))
        tested, untested = classified_rows(trained, part, part.indices("test"))
        failed += untested
        accuracies.append(classification_metrics(tested, column.levels).get("accuracy"))
        rows += [{**row, "fold": number, "used_for": ""} for row in tested]
    about = {
        "cohort": str(cohort.folder.resolve()),
        "phantom": cohort.is_phantom,
        "target": target,
        "folds": options.folds,
        "seed": options.seed,
        "accuracy_of_folds": accuracies,
    }
    return ClassificationResult(rows, levels, about, failed)


def assign_folds(
    rows: Sequence[dict[str, str]], target: str, folds: int, seed: int
) -> dict[str, int]:
    """Draw the fold of each family by a hash, as many of each class in every fold as can be.

    Without a column ``family`` each participant is one. The largest families are dealt first.

    Args:
        rows: of ``participants.tsv``, with a class each.
        target: column of the class; of a participant with several, that of the first row counts.
        folds: how many.
        seed: of the hash.

    Returns:
        The fold of each participant.

    Raises:
        InputError: a fold would be empty, or the rest would lack a class.
    """
    class_of: dict[str, str] = {}
    for row in rows:
        class_of.setdefault(row["participant_id"], row[target])
    members: dict[str, list[str]] = {}
    for name, family in _families(rows).items():
        members.setdefault(family, []).append(name)
    classes = {family: Counter(class_of[name] for name in own) for family, own in members.items()}
    counts = Counter(level for own in classes.values() for level in own)
    rarest = min(counts, key=lambda level: (counts[level], level)) if counts else ""
    if not counts or folds < 2 or counts[rarest] < folds:
        raise InputError(
            "expected at least two folds and as many participants of each class (families, where "
            f"they are known), got {folds}; of {target} {rarest!r} there are "
            f"{counts.get(rarest, 0)}"
        )

    def order(family: str) -> tuple[str, int, int, str]:
        own = members[family]
        return class_of[own[0]], -len(own), seed_of(seed, "fold", family), family

    held = [Counter[str]() for _ in range(folds)]  # participants of each class

    def crowding(number: int, family: str) -> tuple[int, int, int]:
        like = sum(count * held[number][level] for level, count in classes[family].items())
        return like, held[number].total(), number

    fold_of: dict[str, int] = {}
    for family in sorted(members, key=order):
        number = min(range(folds), key=partial(crowding, family=family))
        held[number].update(classes[family])
        fold_of.update(dict.fromkeys(members[family], number))
    return fold_of


def _families(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Family of each participant, who is one alone where no family is known."""
    found: dict[str, str] = {}
    for row in rows:
        found.setdefault(row["participant_id"], family_of(row))
    return found


def split_for_fold(cohort: Cohort, fold_of: dict[str, int], number: int, seed: int) -> Cohort:
    """Split a cohort: one fold to test, a share of the others to validate, the rest to train.

    Relatives are in one split. Who is in no fold (of no known class) is trained on, which does
    nothing.
    """
    families = _families(cohort.rows)

    def split(name: str) -> str:
        if fold_of.get(name) == number:
            return "test"
        drawn = seed_of(seed, "validation", number, families[name]) / 2**63
        return "validation" if drawn < VALIDATION else "train"

    rows = [{**row, "split": split(row["participant_id"])} for row in cohort.rows]
    return replace(cohort, rows=rows)
