"""Every file that the commands write as a result: its name, what it holds, what its columns mean.

Who writes a file and who reads it take its name from here, not from each other: the report needs
no code of what it reports. The files of a cohort folder are named in `foldnorm.preprocessing`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foldnorm.preprocessing.core.file_names import RUN_REPORT, checked_name


@dataclass(frozen=True)
class Artifact:
    """A file in the output folder of a command.

    It can stand in a path: ``out / SCORES``.

    Attributes:
        command: that writes it, first of all.
        name: of the file in that folder; fields in braces stand for what differs between files.
        about: what it holds.
        columns: meaning of each column of a table, in their order. ``*`` stands for a name that
            depends on the data: of a score, a class, a parameter.
    """

    command: str
    name: str
    about: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def __fspath__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name

    def of(self, **fields: Any) -> str:
        """Name of one file, its fields filled in.

        Raises:
            InputError: a field, which may come from data, would lead out of the folder.
        """
        for field_name, value in fields.items():
            if not isinstance(value, int):
                checked_name(value, field_name)
        return self.name.format(**fields)

    @property
    def pattern(self) -> str:
        """Name with ``*`` for each field, as `pathlib.Path.glob` takes it."""
        return re.sub(r"\{.*?\}", "*", self.name)


# Columns of several tables.
BRAIN = {"participant_id": "of participants.tsv", "hemi": "L, R, or empty for what has no side"}
IMAGE = {"image": "name of an image of the participant"}
PARTICIPANTS = {"*": "the columns of participants.tsv"}
VOLUME = {"volume": "participant and side: sub-…_hemi-…"}
MNI_PLACE = {f"{axis}_mni": "the same, MNI mm, where a transform is known" for axis in "xyz"}
LOCALISATION_FIGURES = {
    "hit": "1 if the strongest region holds a deleted voxel, else 0",
    "rank": "of the first region that does; 0 if none of those listed does",
    "dice": "of all voxels that reach the threshold and the deleted ones",
    "error_mm": "from the middle of the strongest region to that of the deletion",
}
INTERVAL = "end of the 95 % bootstrap interval"
RANGE_OVER_SEEDS = {"*_low": "least over seeds", "*_high": "largest over seeds"}

# preprocess
QUALITY_PAGE = Artifact(
    "preprocess", "qc.html", "Every volume before and after preparation, with its quantities."
)

# train: the run folder. A bundle has some of these files as well.
RUN_CONFIG = Artifact("train", "config.yaml", "The configuration as resolved.")
RUN_DATA = Artifact(
    "train",
    "data.json",
    "The cohort: its preparation, who was in which split, what a model is told.",
)
RUN_METRICS = Artifact(
    "train",
    "metrics.csv",
    "Losses and validation figures, one row a logged step.",
    {
        "step": "of training",
        "epoch": "passes through the training volumes",
        "*/*": "phase, validation or samples, then the figure",
    },
)
RUN_ENVIRONMENT = Artifact("train", "environment.json", "Versions, machine and command.")
RUN_COST = Artifact(
    "train", "cost.json", "Parameters, seconds, peak memory; written when training has finished."
)
CHECKPOINT = Artifact("train", "checkpoints/{name}.ckpt", "Weights and state, last and best.")
RUN_SAMPLE = Artifact(
    "train", "samples/step-{step:07d}.png", "Validation volumes and what the model makes of them."
)
MODEL_CARD = Artifact(
    "train", "MODEL_CARD.md", "What the model is, what it was trained on, how well it does."
)

# export: the MONAI bundle.
BUNDLE_METADATA = Artifact("export", "configs/metadata.json", "As MONAI's schema wants it.")
BUNDLE_INFERENCE = Artifact(
    "export", "configs/inference.json", "From files to files, by monai.bundle run."
)
BUNDLE_TRAIN = Artifact(
    "export", "configs/train.json", "Training that goes on, by monai.bundle run training."
)
BUNDLE_DATALIST = Artifact(
    "export",
    "datalist.tsv",
    "Volumes that training goes on with, where train.json is given dictionaries.",
    {
        "participant_id": "Whose volume it is.",
        "path": "The volume.",
        "hemi": "L, R, or n/a.",
    },
)
BUNDLE_LOGGING = Artifact("export", "configs/logging.conf", "What MONAI says as it runs.")
BUNDLE_CARD = Artifact("export", "docs/README.md", "The model card, and how to use the bundle.")
BUNDLE_LICENCE = Artifact("export", "LICENSE", "Terms of the weights.")
BUNDLE_DATA_TERMS = Artifact(
    "export", "docs/data_license.txt", "Terms of the data that the weights were fitted to."
)
BUNDLE_WEIGHTS = Artifact("export", "models/model.safetensors", "The weights.")
BUNDLE_TORCH_WEIGHTS = Artifact("export", "models/model.pt", "The same, as MONAI looks for them.")

# Of every command that works on volumes one by one.
REPORT = Artifact("score", RUN_REPORT, "How many volumes were done, which failed, and why.")

# embed
CODES = Artifact("embed", "codes.npy", "Latent codes, (N, d) float32.")
CODES_TABLE = Artifact("embed", "codes.tsv", "Whose each code is, a row each.", PARTICIPANTS)
CODES_SIDECAR = Artifact("embed", "codes.json", "The run and the cohort.")

# score
MISSING_SULCUS = "missing_sulcus"
SCORES = Artifact(
    "score",
    "scores.tsv",
    "Scores of each brain.",
    {
        **BRAIN,
        "used_for": "training or calibration, if the brain took part in it",
        "flag": "why the model cannot judge this brain",
        "warning": "what the source of this brain warns of; its p-value stands",
        MISSING_SULCUS: "that is most missing, where an atlas names them (sulcus_scores.tsv)",
        "score_*": "high means unusual",
        "p_*": "share of the calibration brains at least as unusual, with 1 added above and "
        "below; n/a for brains that took part in training or calibration, or have a flag",
        "q_*": "the p-value after Benjamini and Hochberg (1995), over the brains that have one",
    },
)
BOTH_SIDES = Artifact(
    "score",
    "both_sides.tsv",
    "Scores of each participant both of whose hemispheres were scored.",
    {
        "participant_id": "of participants.tsv",
        "used_for": "training or calibration, if the participant took part in it",
        "flag": "why the model cannot judge a hemisphere",
        "score_*": "the higher of the two sides'",
        "side_*": "whose it is, L or R",
        "p_*": "share of the calibration participants with both sides whose higher score is at "
        "least as high, with 1 added above and below; n/a as in scores.tsv",
        "q_*": "after Benjamini and Hochberg (1995), over the participants that have one",
    },
)
SULCUS_DEPARTURES = ("missing", "large", "displaced", "interrupted")
SULCUS_EVIDENCE = ("unnamed", "void")  # what missing is joined of


def _of_departures(kinds: Sequence[str]) -> dict[str, str]:
    """Columns of z and p of kinds of departures."""
    z = "in standard deviations of healthy brains; high is unusual"
    p = (
        "share of calibration brains whose same sulcus is at least as unusual, with 1 added above "
        "and below; not corrected for the number of sulci"
    )
    return dict.fromkeys((f"z_{kind}" for kind in kinds), z) | dict.fromkeys(
        (f"p_{kind}" for kind in kinds), p
    )


SULCUS_SCORES = Artifact(
    "score",
    "sulcus_scores.tsv",
    "How each sulcus of each brain departs from healthy ones, where an atlas names them.",
    {
        **BRAIN,
        "used_for": "as in scores.tsv",
        "flag": "as in scores.tsv",
        "sulcus": "its name",
        **_of_departures((*SULCUS_DEPARTURES, *SULCUS_EVIDENCE)),
        "z_missing": "how far it is missing, as names and voids say together: the sum of z_unnamed "
        "and z_void over √2",
        "z_unnamed": "evidence that no fold has its name, in standard deviations of healthy brains",
        "z_void": "evidence of a void where the atlas has it, likewise",
    },
)
SCORES_SIDECAR = Artifact("score", "scores.json", "How the scores were made and calibrated.")
CALIBRATION = Artifact(
    "score",
    "calibration.tsv",
    "Scores of the healthy brains that p-values are counted in.",
    {**BRAIN, "score_*": "high means unusual"},
)
REGIONS = Artifact(
    "score",
    "regions.tsv",
    "Where each brain departs most from healthy ones (--maps).",
    {
        **BRAIN,
        "direction": "missing or unexpected",
        "rank": "1 is the heaviest region",
        "sulcus": "that most training brains have there, if the training cohort names its folds",
        "sulcus_share": "of the training brains that have it there",
        **dict.fromkeys("xyz", "weighted middle, world mm, a right hemisphere on the right"),
        **MNI_PLACE,
        "mm3": "size of the region: what reaches half of its largest z and is connected with it",
        "peak_z": "largest z, in standard deviations of healthy brains",
        "mass": "sum of what z has above the threshold, over all that reaches it around the region",
        "p": "share of calibration brains whose heaviest region has at least this mass, with 1 "
        "added above and below: corrected for the places looked at, not for the brains; none of a "
        "brain that has a flag, or took part",
    },
)
REGIONS_SIDECAR = Artifact(
    "score", "regions.json", "Meaning of the columns, and in whose grid the maps lie."
)
SCORE_MAP = Artifact(
    "score",
    "maps/{brain}_desc-{direction}_{what}.nii.gz",
    "Departure in standard deviations of healthy brains (z), and share of calibration brains that "
    "reach as much anywhere (p).",
)
PAGES_SIDECAR = Artifact(
    "score", "pages.json", "What pages about single brains show, and what their arrays mean."
)
PAGE_ARRAYS = Artifact("score", "pages/{brain}.npz", "Arrays of the page about a brain.")
SCORER = Artifact(
    "score",
    "scorer.json",
    "What a saved scorer is (--save-scorer), with a digest of each of its files; written last.",
)
SCORER_ARRAYS = Artifact("score", "arrays.npz", "Arrays of one part of a saved scorer.")
SCORER_ATLAS = Artifact("score", "atlas.npz", "Atlas of sulci of a saved scorer.")
SCORER_VALUES = Artifact("score", "values.json", "All else that this part has learned.")
# Of a folder of scores the first of these that it has speaks for it, where none is named. Settled
# on one site (MMRR-21 of Mindboggle-101), of sulci on validation phantoms.
USUAL_SCORES = (
    "evidence_component",
    "shortfall_component",
    "sulci_missing",
    "sulcus_missing",
    "latent_map_component",
    "latent_centre",
    "reconstruction_missing_local",
    "void_component",
)

# fuse
FUSED = Artifact(
    "fuse",
    "fused.tsv",
    "Joined p-value of each brain.",
    {
        **BRAIN,
        "p_*": "of a score that was joined",
        "p_fused": "joined, and calibrated anew",
        "q_fused": "after Benjamini and Hochberg (1995), over the brains that have one",
    },
)
FUSED_SIDECAR = Artifact("fuse", "fused.json", "Which scores were joined, and how.")

# benchmark
BENCHMARK = Artifact(
    "benchmark",
    "benchmark.tsv",
    "How well each score tells altered brains from healthy ones, a row a size and score.",
    {
        "size": "of what was altered; 0 is the control",
        "score": "its name",
        "auroc": "unpaired: altered brains against others",
        "auroc_low": INTERVAL,
        "auroc_high": INTERVAL,
        "ap": "average precision, unpaired",
        "ap_low": INTERVAL,
        "ap_high": INTERVAL,
        "fpr95": "false-positive rate at 95 % sensitivity, unpaired",
        "fpr95_low": INTERVAL,
        "fpr95_high": INTERVAL,
        "prevalence": "of altered brains, the chance level of average precision",
        "paired": "share of altered brains whose own score rises",
        "n": "altered brains, mean over draws",
        "false_alarm": "share of untouched brains with p < 0.05, where that can be known",
    },
)
BENCHMARK_SIDECAR = Artifact("benchmark", "benchmark.json", "What was altered, and how it is told.")
BENCHMARK_SUBJECTS = Artifact(
    "benchmark",
    "benchmark_subjects.tsv",
    "The scores behind the table, a row a size, draw and brain.",
    {
        "size": "as in benchmark.tsv",
        "draw": "number of the draw of halves and deletions",
        **VOLUME,
        "altered": "1, or 0 for a control",
        "*": "each score",
    },
)
LOCALISATION = Artifact(
    "benchmark",
    "localisation.tsv",
    "Whether evidence points at what was deleted, a row a deletion.",
    {
        "size": "as in benchmark.tsv",
        "draw": "number of the draw of halves and deletions",
        **VOLUME,
        "name": "of the fold",
        "deletion_size": "mm² of sheet, or mm³ of a ball",
        **LOCALISATION_FIGURES,
    },
)
ONE_FOLD = {
    **VOLUME,
    "participant_id": "of participants.tsv",
    "label": "of the fold, in this brain",
    "name": "of the fold",
    "size": "mm² of sheet",
    "voxels": "that were erased",
}
EVERY_FOLD = Artifact(
    "benchmark",
    "every_fold.tsv",
    "Scores before and after each fold was left out (--leave-one-fold-out), a row each.",
    {**ONE_FOLD, "score": "its name", "before": "of the whole brain", "after": "without the fold"},
)
EVERY_FOLD_SUMMARY = Artifact(
    "benchmark",
    "every_fold_summary.tsv",
    "Share of folds without which a score rises, a row a score.",
    {
        "score": "its name",
        "paired": "share of folds without which it rises, ties counted half",
        "paired_low": f"{INTERVAL} over families",
        "paired_high": f"{INTERVAL} over families",
        "folds": "how many",
        "participants": "how many",
    },
)
EVERY_FOLD_PLACES = Artifact(
    "benchmark",
    "every_fold_places.tsv",
    "Whether evidence points at the fold that was taken out, a row a fold.",
    {**ONE_FOLD, **LOCALISATION_FIGURES},
)

# recognise
SULCI = Artifact(
    "recognise",
    "sulci.tsv",
    "What each sulcus of each brain is like.",
    {
        **BRAIN,
        "sulcus": "its name",
        "used_for": "training or calibration, if the brain took part in it; it has no p then",
        "flag": "why the model cannot judge this brain; it has no p then",
        "size_mm2": "voxels times the mean face of one, counted by the probability of the name",
        "confidence": "mean probability of the name over that size",
        **dict.fromkeys("xyz", "centre, world mm, a right hemisphere on the right"),
        **MNI_PLACE,
        "depth_mm": "of its deepest voxel below the outside of the brain",
        "pieces": "26-connected",
        **_of_departures(SULCUS_DEPARTURES),
    },
)
SULCI_SIDECAR = Artifact("recognise", "sulci.json", "The run, the sulci, meaning of the columns.")
SULCUS_NAMES = Artifact(
    "recognise",
    "sulcus_names.tsv",
    "Names of the labels.",
    {"label": "in the label volumes", "name": "of the sulcus"},
)
SULCUS_LABELS = Artifact(
    "recognise", "{brain}_desc-sulci_dseg.nii.gz", "Label of the sulcus of each voxel."
)
SULCUS_PICTURE = Artifact(
    "recognise", "{brain}_desc-sulci.png", "Sulci seen from left, right and above, one colour each."
)
NAMED_FOLDS = Artifact(
    "recognise",
    "folds.tsv",
    "Names of the folds of each brain, by an atlas.",
    {
        **BRAIN,
        "flag": "why the names of this brain mean little: it lies in the atlas unlike its side, or "
        "in another space; as in sulci.tsv",
        "fold": "its label in the cohort, or its number by size",
        "voxels": "of it, in the grid of the cohort",
        "sulcus": "its name; empty if it has none",
        "unnamed": "why it has none: `no sulcus of the atlas there`; `like folds without a name`, "
        "by what was learned; `unsure`, its likeliest name is less likely than "
        "--least-probability; `inside a gyrus`, as the cohort's gyri say",
        "likeliest": "name that the atlas would give it; empty where it would give none",
        "probability": "of that name; from .9 on, at least nine tenths of voxels are right",
        "second": "next likely name",
        "second_probability": "of that one",
    },
)

# translate
TRANSLATIONS = Artifact(
    "translate",
    "translations.tsv",
    "How well each volume was translated, where the true one is known.",
    {
        **BRAIN,
        "split": "of the cohort",
        "mean_dice": "over classes",
        "dice_*": "of a class",
        "surface_dice_*": "of a class, within 1 mm",
        "hd95_*": "95th percentile of the distances between surfaces, mm",
        "assd_*": "mean distance between surfaces, mm",
    },
)
TRANSLATIONS_SIDECAR = Artifact("translate", "translations.json", "The run, and both schemes.")
TRANSLATED = Artifact(
    "translate", "{brain}_desc-translated_dseg.nii.gz", "What the model makes of a volume."
)

# classify and crossvalidate
CLASSES = Artifact(
    "classify",
    "classes.tsv",
    "Predicted class of each volume.",
    {
        "fold": "of a cross-validation: number of the model that was not trained on it",
        **BRAIN,
        **IMAGE,
        "used_for": "training, if the weights were fitted to the participant",
        "true": "class, where it is known",
        "predicted": "likeliest class",
        "p_*": "probability of a class",
    },
)
CLASSES_SIDECAR = Artifact("classify", "classes.json", "Accuracy, its interval, confusion matrix.")

# restore
RESTORED = Artifact(
    "restore",
    "restored.tsv",
    "How well each image was repaired, where what it was is known (--degrade).",
    {
        "participant_id": "of participants.tsv",
        **IMAGE,
        "psnr": "dB, of the whole image",
        "ssim": "structural similarity; 1 is the same image",
        "psnr_gain": "dB above that of what the model was shown",
        "psnr_inside": "dB, where there was damage",
        "mask_iou": "intersection over union of the damage that was found and the true one",
    },
)
RESTORED_SIDECAR = Artifact("restore", "restored.json", "The run, the method, means of the table.")
RESTORED_SHEET = Artifact("restore", "contact_sheet.png", "The first images, one a column.")
RESTORED_IMAGE = Artifact(
    "restore",
    "{image}_desc-{what}",
    "An image as given or degraded, what was found, restored, as it was; .png, of 3-D .nii.gz.",
)

# generate
SYNTHETIC_SIDECAR = Artifact("generate", "synthetic.json", "The run, and how volumes were drawn.")
SYNTHETIC_SHEET = Artifact("generate", "contact_sheet.png", "The first of them.")
SYNTHETIC_VOLUME = Artifact(
    "generate", "synthetic-{n}_dseg.nii.gz", "A drawn volume; of images, without _dseg."
)

# quality
QUALITY = Artifact(
    "quality",
    "quality.tsv",
    "How synthetic volumes compare with training ones, beside held-out ones; a row a figure.",
    {
        "figure": "its name",
        "synthetic": "of what was made",
        "held_out": "of real volumes that were not trained on: the floor",
        "training": "of training volumes among themselves, where that can be said",
        "better": "which way is better: low, high, or near the floor",
    },
)
QUALITY_SIDECAR = Artifact("quality", "quality.json", "What was compared, and in which features.")
QUALITY_PAIRS = Artifact(
    "quality", "closest_pairs.png", "Synthetic volumes beside the nearest training ones."
)
BLIND_SHEET = Artifact(
    "quality",
    "blind_sheet.png",
    "Synthetic and held-out real volumes in random order, for a reader (`--blind-sheet`).",
)
BLIND_KEY = Artifact(
    "quality",
    "blind_sheet_key.tsv",
    "Which volumes of the blind sheet are synthetic; a row a volume.",
    {
        "row": "of the sheet, from 1 at the top",
        "column": "of the sheet, from 1 at the left; a volume is three slices",
        "kind": "synthetic or real",
        "volume": "file of a synthetic volume, participant of a real one",
    },
)

# compare
COMPARISON = Artifact(
    "compare",
    "comparison.tsv",
    "Mean of every figure over seeds, a row a configuration or baseline.",
    {"model": "its name", "seeds": "how many", **RANGE_OVER_SEEDS, "*": "each figure"},
)
COMPARISON_RUNS = Artifact(
    "compare",
    "comparison_runs.tsv",
    "Every figure of each training.",
    {"model": "its name", "seed": "of the training", "steps": "of training", "*": "each figure"},
)
COMPARISON_SIDECAR = Artifact("compare", "comparison.json", "The budget, and what was deleted.")
COMPARISON_ASKED = Artifact(
    "compare", "asked.json", "In each run folder: command and configuration that made it."
)
COMPARISON_MEASURED = Artifact("compare", "measured.json", "In each run folder: its figures.")

# search
TRIALS = Artifact(
    "search",
    "trials.tsv",
    "What is known of each trial.",
    {
        "number": "of the trial",
        "state": "complete, pruned, running, waiting or fail",
        "value": "best monitored figure, of a complete one",
        "steps": "that were measured",
        "folder": "of its run, under trials/",
        "reason": "why it failed",
        "*": "each parameter that varies",
    },
)
SEARCH_SIDECAR = Artifact("search", "search.json", "What varies, and which figure decides.")
SEARCH_BEST = Artifact("search", "best.yaml", "Configuration of the best trial.")
SEARCH_JOURNAL = Artifact("search", "journal.log", "Optuna's journal, shared by all processes.")

# latent
LATENT_SIDECAR = Artifact("latent", "latent.json", "Of which model and brains the analyses are.")
CLUSTERS = Artifact(
    "latent",
    "clusters.tsv",
    "How well codes fall into k clusters, a row a k.",
    {
        "k": "number of clusters",
        "silhouette": "mean over brains",
        "gap": "gap statistic",
        "gap_sd": "its standard deviation",
        "stability": "mean adjusted Rand index of clusterings of bootstrapped brains",
        "sizes": "brains of each cluster",
    },
)
CLUSTERED = Artifact(
    "latent",
    "clusters_brains.tsv",
    "Cluster of each brain.",
    {**BRAIN, **IMAGE, "cluster_*": "of a k", "silhouette_*": "of a k"},
)
CLUSTERS_SIDECAR = Artifact("latent", "clusters.json", "Whether there is more than one cluster.")
PROBES = Artifact(
    "latent",
    "probes.tsv",
    "What can be read off the codes by a straight line, a row a column.",
    {
        "column": "of participants.tsv, or a sulcus",
        "measure": "auc of two categories, balanced accuracy of several, r of a quantity",
        "value": "of held-out brains",
        "low": INTERVAL,
        "high": INTERVAL,
        "chance": "what guessing gives",
        "p": "share of permutations, 1 added above and below, that do as well",
        "brains": "with a value in the column",
    },
)
PROBED = Artifact(
    "latent",
    "probes_brains.tsv",
    "Held-out predictions, a row a brain and column.",
    {"column": "that is predicted", **BRAIN, **IMAGE, "predicted": "by a model of the others"},
)
MEAN = Artifact("latent", "mean_code_dseg.nii.gz", "The mean code, decoded.")
MEAN_SHARE = Artifact(
    "latent", "mean_label-{label}_probseg.nii.gz", "Mean probability of a class over brains."
)
MEAN_SURFACE = Artifact(
    "latent", "mean_label-{label}.{suffix}", "Surface of a class, .ply and .surf.gii."
)
MEAN_PICTURE = Artifact("latent", "mean.png", "Both, in slices.")
NEIGHBOURS = Artifact(
    "latent",
    "neighbours.tsv",
    "The brains nearest to one.",
    {
        "rank": "1 is the nearest",
        "brain": "its name",
        "distance": "of the codes",
        "percentile": "of that distance among all pairs with the brain; 0 for the nearest",
    },
)
NEIGHBOUR_VOLUME = Artifact(
    "latent", "neighbours-{n:03d}_dseg.nii.gz", "The brain (0) and its neighbours."
)
NEIGHBOURS_PICTURE = Artifact("latent", "neighbours.png", "The same, in slices.")
INTERPOLATION = Artifact("latent", "interpolation.json", "From which brain to which.")
INTERPOLATION_VOLUME = Artifact("latent", "interpolation-{n:03d}_dseg.nii.gz", "A step, decoded.")
INTERPOLATION_SURFACE = Artifact("latent", "interpolation-{n:03d}.ply", "Surface of a step.")
INTERPOLATION_PICTURE = Artifact("latent", "interpolation.png", "The steps, in slices.")
INTERPOLATION_ANIMATION = Artifact("latent", "interpolation.gif", "The surface as it moves.")
DIMENSIONS = Artifact(
    "latent",
    "dimensions.tsv",
    "Which dimensions change what is decoded, a row each.",
    {
        "rank": "1 changes most",
        "dimension": "its number",
        "effect": "of a step along it on the reconstruction loss, nats a voxel; where measured",
        "predicted_effect": "the same, predicted from gradient and curvature of the loss",
        "variance": "of the codes over brains; above 0.01 a dimension is active",
    },
)
DIMENSION_VALUES = Artifact(
    "latent",
    "dimensions_brains.tsv",
    "Values of the first dimensions.",
    {"brain": "its name", "*": "each dimension"},
)
DIMENSION_MOVED = Artifact(
    "latent", "dimension-{dimension:05d}_desc-moved.nii.gz", "How much it changes each voxel."
)
DIMENSION_SWEEP = Artifact(
    "latent",
    "dimension-{dimension:05d}_sweep-{n}_dseg.nii.gz",
    "The mean code with this dimension between its observed extremes.",
)
SWEEP_STEPS = 7
DIMENSIONS_PICTURE = Artifact("latent", "dimensions.png", "The sweeps, in slices.")
SULCUS_SIZE = "size_mm2@"  # and the name of a sulcus: columns of the projection
PROJECTION = Artifact(
    "latent",
    "projection.tsv",
    "Where each brain lies in two or three dimensions, and what is known of it.",
    {
        "brain": "its name",
        "cohort": "name of its folder",
        "index": "in the cohort",
        "role": "fitted, or placed afterwards",
        "x": "first axis",
        "y": "second axis",
        "z": "third axis, if there is one",
        **PARTICIPANTS,
        "deletion_size": "of an altered cohort: mm² of sheet, or mm³ of a ball; 0 if none",
        "score_*": "of foldnorm score",
        "p_*": "of foldnorm score",
        f"{SULCUS_SIZE}*": "of a sulcus, by foldnorm label-sulci or the names of a cohort's folds",
    },
)
PROJECTION_SIDECAR = Artifact("latent", "projection.json", "The method, and how far groups lie.")
PROJECTION_SLICES = Artifact("latent", "projection_slices.png", "One slice of each brain, in rows.")
TILES = 40  # slices in a row of that picture
