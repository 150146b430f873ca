"""One table of broken inputs: every kind of file that a command reads, damaged in every way.

`KINDS` says how a good file of each kind is made and which commands read it; `GENERIC` and the
kind's own damages say what becomes of its bytes. `cases` is the product.
"""

import gzip
import io
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import tifffile
import yaml
from conftest import annotated_source, skeleton_volume
from PIL import Image
from test_fold_graph import write_graph

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.config import config_path
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

Damage = Callable[[bytes], bytes]
N_COMMANDS = 3
MAX_LINE = 1000  # characters of a message
TO_MNI = b"0 0 0\n-1 0 0\n0 -1 0\n0 0 -1\n"  # a transform in the order of AIMS
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
GENERIC: Mapping[str, Damage] = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "text": lambda whole: b"not what it is named\n",
    "ones": lambda whole: b"\xff" * 500,
    "zeros": lambda whole: bytes(len(whole)),
    "pointer": lambda whole: LFS,
}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: writes good input into a folder, and returns the file that is to be damaged; or the
            fixture whose folder is copied, and the file in it.
        commands: that read it, by name; ``{source}`` is the folder, ``{file}`` the damaged file,
            ``{out}`` where to write, other fields are fixtures.
        damages: of this kind, beside the generic ones.
        harmless: commands, damages, or both (``command/damage``) after which a command may well
            succeed: it does not need the file, or what is left of it is good.
        warned: likewise, those after which it succeeds and says so.
    """

    make: Callable[[Path], Path] | tuple[str, str]
    commands: Mapping[str, str]
    damages: Mapping[str, Damage] = field(default_factory=dict)
    harmless: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()


def nifti(folder: Path) -> Path:
    return written(folder / "sub-1.nii.gz", gzip.compress(plain_nifti(), mtime=0))


def plain_nifti() -> bytes:
    return nibabel.Nifti1Image(skeleton_volume(), np.eye(4)).to_bytes()


def unpacked_nifti(folder: Path) -> Path:
    return written(folder / "sub-1.nii", plain_nifti())


def segmented_nifti(folder: Path) -> Path:
    return segmentation(folder / "sub-1.nii.gz")


def freesurfer(folder: Path) -> Path:
    return segmentation(folder / "sub-1" / "mri" / "aseg.mgz")


def mgz(folder: Path) -> Path:
    image = nibabel.MGHImage(skeleton_volume().astype(np.int32), np.eye(4))
    return written(folder / "sub-1.mgz", gzip.compress(image.to_bytes(), mtime=0))


def in_mni_space(folder: Path) -> Path:
    """A grey-white volume of a tree, with its way to MNI space."""
    place = annotated_source(folder, 1) / "s0/t1mri/default_acquisition"
    way = place / "registration" / "RawT1-s0_default_acquisition_TO_Talairach-MNI.trm"
    written(way, TO_MNI)
    return place / "default_analysis/segmentation/Lgrey_white_s0.nii.gz"


def companion(stem: str) -> Callable[[Path], Path]:
    """A volume beside the skeleton of a tree."""
    return lambda folder: next(annotated_source(folder, 1).rglob(f"L{stem}_*"))


def fold_names(folder: Path) -> Path:
    return annotated_source(folder, 1) / "fold_names.tsv"


def people(folder: Path) -> Path:
    nifti(folder)
    return written(folder / "participants.tsv", b"participant_id\tage\nsub-1\t30\n")


def quality(folder: Path) -> Path:
    nifti(folder / "source")
    written(folder / "source" / "sub-2.nii.gz", gzip.compress(plain_nifti(), mtime=0))
    return written(folder / "qc.tsv", b"participant_id\tqc\n1\t1\n2\t0\n")


def mask(folder: Path) -> Path:
    nifti(folder / "source")
    image = nibabel.Nifti1Image((skeleton_volume() == 60).astype(np.uint8), np.eye(4))
    return written(folder / "mask.nii.gz", gzip.compress(image.to_bytes(), mtime=0))


def template(folder: Path) -> Path:
    segmented_nifti(folder / "source")
    return segmentation(folder / "template.nii.gz")


def segmentation(path: Path) -> Path:
    """Two brains, white within grey, with the numbers of FreeSurfer."""
    volume = np.zeros((48, 24, 24), np.int16)
    for start, (grey, white) in ((26, (3, 2)), (2, (42, 41))):
        volume[start : start + 20, 2:22, 2:22] = grey
        volume[start + 4 : start + 16, 6:18, 6:18] = white
    affine = np.diag([-1.0, 1, 1, 1])
    affine[0, 3] = 24
    image = (nibabel.MGHImage if path.suffix == ".mgz" else nibabel.Nifti1Image)(volume, affine)
    return written(path, gzip.compress(image.to_bytes(), mtime=0))


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def picture(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        stream = io.BytesIO()
        if name.endswith("tif"):
            tifffile.imwrite(stream, grey)
        else:
            Image.fromarray(grey).save(stream, format={"jpg": "JPEG"}.get(name[-3:], name[-3:]))
        return written(folder / name, stream.getvalue())

    return make


def idx(folder: Path) -> Path:
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 16, 16)
    return written(folder / "train-images-idx3-ubyte", head + bytes(range(256)))


def table(folder: Path) -> Path:
    nifti(folder / "volumes")
    text = "participant_id\tpath\n1\tvolumes/sub-1.nii.gz\n"
    return written(folder / "list.tsv", text.encode())


def image_table(folder: Path) -> Path:
    picture("a.png")(folder)
    return written(folder / "participants.tsv", b"participant_id\tfile\n1\ta.png\n")


def graph(folder: Path) -> Path:
    nifti(folder)
    write_graph(folder)
    text = "participant_id\tpath\tgraph\ttransform\n1\tsub-1.nii.gz\tL1_session.arg\ta.trm\n"
    written(folder / "list.tsv", text.encode())
    written(folder / "a.trm", TO_MNI)
    return folder / "L1_session.arg"


def bucket(folder: Path) -> Path:
    return graph(folder).with_suffix(".data") / "ss_Bucket.bck"


def transform(folder: Path) -> Path:
    nifti(folder)
    text = "participant_id\tpath\ttransform\n1\tsub-1.nii.gz\ta.trm\n"
    written(folder / "list.tsv", text.encode())
    return written(folder / "a.trm", TO_MNI)


def scheme(folder: Path) -> Path:
    nifti(folder / "source")
    classes = [{"name": "rest", "values": [0, 11]}, {"name": "sulcus", "values": [60]}]
    return written(folder / "a.yaml", yaml.safe_dump({"name": "a", "classes": classes}).encode())


def regions(folder: Path) -> Path:
    annotated_source(folder / "source", 1)
    return written(folder / "a.yaml", b"mine: [long]\n")


def maps(folder: Path) -> Path:
    places = np.indices((12, 12, 12)).sum(axis=0)
    for n, name in enumerate(("one", "other")):
        image = nibabel.Nifti1Image((places == 10 + 6 * n).astype(np.int16), np.eye(4))
        written(folder / f"L/{name}_left.nii.gz", gzip.compress(image.to_bytes(), mtime=0))
    return folder / "L/one_left.nii.gz"


def atlas(folder: Path) -> Path:
    SulcusAtlas.from_masks(maps(folder / "maps").parents[1]).save(folder / "a.npz")
    return folder / "a.npz"


def tissues(folder: Path) -> Path:
    segmented_nifti(folder)
    sides = {side: {"grey": [n + 1], "white": [n]} for side, n in (("left", 2), ("right", 41))}
    return written(folder / "a.yaml", yaml.safe_dump(sides).encode())


def configuration(folder: Path) -> Path:
    return written(folder / "a.yaml", config_path("wgan_gp").read_bytes())


def header(place: int, form: str, *values: object) -> Damage:
    """Other values in the header of an unpacked NIfTI."""

    def damage(whole: bytes) -> bytes:
        content = bytearray(whole)
        struct.pack_into(form, content, place, *values)
        return bytes(content)

    return damage


SCORE_SULCI = "score sulci {cohort} -o {out} --reference {cohort} --atlas {atlas}"
PREPROCESS = "preprocess {source} -o {out} --n-procs 1"
OF_LIST = "preprocess {source}/list.tsv -o {out} --n-procs 1"
WITHIN = "preprocess {source}/source -o {out} --n-procs 1"
IMAGES = "images {source} -o {out}"
INSPECT = "inspect {source}"
SKELETONISE = "skeletonise {source} -o {out} --n-procs 1"
TEMPLATE = "template {source} -o {out}.nii.gz"
FOLDS = "folds {source}/list.tsv -o {out} --n-procs 1"
APPLIED: Mapping[str, str] = {
    "translate": "translate {translator} {source} -o {out} --device cpu",
    "label-sulci": "label-sulci {labeller} {source} -o {out} --device cpu",
}
TO_LIST = {name: words.replace("{source}", "{source}/list.tsv") for name, words in APPLIED.items()}
TO_IMAGES: Mapping[str, str] = {
    "images": IMAGES,
    "restore": "restore {denoiser} {source} -o {out} --device cpu",
    "classify": "classify {classifier} {source} -o {out} --device cpu",
}


LAUGHS = b"a0: &a0 [x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 9)
)
OF_YAML: Mapping[str, Damage] = {
    "deep": lambda whole: b"[" * 5000,
    "laughs": lambda whole: LAUGHS,
    "itself": lambda whole: b"&a [*a]",
    "object": lambda whole: b"!!python/object/apply:os.system ['touch PWNED']",
    "list": lambda whole: b"- 1\n- 2\n",
    "number": lambda whole: b"3\n",
    "date": lambda whole: b"2024-13-45\n",
    "twice": lambda whole: whole + whole,
}
OF_HEADER: Mapping[str, Damage] = {
    "terabytes": header(40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1),
    "negative side": header(40, "<8h", 3, 24, -24, 24, 1, 1, 1, 1),
    "no side": header(40, "<8h", 3, 24, 0, 24, 1, 1, 1, 1),
    "unknown type": header(70, "<h", 999),
    "colours": header(70, "<h", 128),
    "nowhere": header(280, "<12f", *[0.0] * 12),
    "NaN affine": header(280, "<12f", *[float("nan")] * 12),
    "NaN slope": header(112, "<2f", float("inf"), float("nan")),
    "offset": header(108, "<f", 1e30),
}
OF_TABLE: Mapping[str, Damage] = {
    "header only": lambda whole: whole.splitlines()[0] + b"\n",
    "unknown columns": lambda whole: b"a\tb\n1\t2\n",
    "short rows": lambda whole: whole.splitlines()[0] + b"\n1\n",
    "quote": lambda whole: whole + b'"2\tb\n',
    "long cell": lambda whole: whole + b"x" * 200_000 + b"\ty\n",
    "no id": lambda whole: re.sub(rb"\n[^\t\n]+\t", b"\n\t", whole),
    "zero byte": lambda whole: re.sub(rb"\n([^\t\n]+)\t", b"\n\\1\0\t", whole),
    "latin": lambda whole: whole + "é\té\n".encode("latin-1"),
}
OF_GZIP: Mapping[str, Damage] = {
    "garbage within": lambda whole: gzip.compress(b"\xff" * 500),
    "cut within": lambda whole: gzip.compress(gzip.decompress(whole)[:-100]),
    "checksum": lambda whole: whole[:-8] + b"\0\0\0\0" + whole[-4:],
    "lying size": lambda whole: whole[:-4] + b"\xff\xff\xff\xff",
}
OF_IDX: Mapping[str, Damage] = {
    "lying size": lambda whole: whole[:4] + b"\xff" * 12 + whole[16:],
    "unknown type": lambda whole: whole[:2] + b"\x07" + whole[3:],
    "no image": lambda whole: whole[:4] + bytes(4) + whole[8:16],
    "many axes": lambda whole: whole[:3] + b"\xff" + whole[4:],
}
OF_PNG: Mapping[str, Damage] = {
    "lying size": lambda whole: whole[:16] + b"\x7f\xff\xff\xff" * 2 + whole[24:],
}
FILES: Mapping[str, Kind] = {
    "nii.gz": Kind(
        nifti,
        {"preprocess": PREPROCESS, "images": IMAGES, "inspect": INSPECT, **APPLIED},
        OF_GZIP,
        harmless=("inspect", "images/lying size"),
    ),
    "segmentation": Kind(segmented_nifti, {"skeletonise": SKELETONISE}, OF_GZIP),
    "grey-white": Kind(in_mni_space, {"template": TEMPLATE}, OF_GZIP),
    "aseg.mgz": Kind(freesurfer, {"skeletonise": SKELETONISE, "inspect": INSPECT}, OF_GZIP,
                     harmless=("inspect",)),
    "pair": Kind(companion("grey_white"), {"preprocess": PREPROCESS + " --pair grey-white"},
                 OF_GZIP),
    "folds": Kind(companion("folds"), {"preprocess": PREPROCESS}, OF_GZIP),
    "mask": Kind(mask, {"preprocess": WITHIN + " --crop mask:{file}"}, OF_GZIP),
    "template": Kind(
        template,
        {"skeletonise": "skeletonise {source}/source -o {out} --n-procs 1 --align {file}"},
        OF_GZIP,
    ),
    "nii": Kind(
        unpacked_nifti,
        {"preprocess": PREPROCESS, "images": IMAGES, **APPLIED},
        OF_HEADER,
        harmless=("images/nowhere", "images/NaN affine", "NaN slope", "preprocess/nowhere",
                  "images/colours"),
    ),
    "mgz": Kind(
        mgz,
        {"preprocess": PREPROCESS, "inspect": INSPECT, **APPLIED},
        OF_GZIP,
        harmless=("inspect",),
    ),
    "png": Kind(picture("a.png"), {**TO_IMAGES, "inspect": INSPECT}, OF_PNG, ("inspect",)),
    "jpg": Kind(picture("a.jpg"), TO_IMAGES, harmless=("half",)),
    "bmp": Kind(picture("a.bmp"), TO_IMAGES),
    "tif": Kind(picture("a.tif"), {**TO_IMAGES, "inspect": INSPECT}, harmless=("inspect",)),
    "idx": Kind(idx, {**TO_IMAGES, "inspect": INSPECT}, OF_IDX, harmless=("inspect",)),
    "table": Kind(
        table,
        {"preprocess": OF_LIST, "inspect": "inspect {file}", **TO_LIST},
        OF_TABLE,
        harmless=("inspect", "half", "preprocess/quote", "preprocess/no id"),
    ),
    "table of images": Kind(
        image_table,
        {**TO_IMAGES, "images": IMAGES + " --table {file}"},
        OF_TABLE,
        harmless=("half",),
        warned=tuple(
            f"{command}/{damage}"  # without --table: a table that does not say whose images are
            for command in ("restore", "classify")
            for damage in ("empty", "text", "header only", "unknown columns")
        ),
    ),
    "table of people": Kind(
        people,
        {"preprocess": PREPROCESS},
        OF_TABLE,
        warned=("empty", "half", "text", "header only", "quote", "no id"),
    ),
    "table of quality": Kind(quality, {"preprocess": WITHIN + " --qc {file}"}, OF_TABLE),
    "names of folds": Kind(
        fold_names,
        {"preprocess": PREPROCESS},
        OF_TABLE,
        harmless=("half",),
        warned=("empty", "text", "header only"),
    ),
    "graph": Kind(
        graph,
        {"folds": FOLDS, "preprocess": OF_LIST, "inspect": INSPECT},
        harmless=("inspect", "preprocess/half"),
    ),
    "bucket": Kind(bucket, {"folds": FOLDS, "preprocess": OF_LIST}, harmless=("folds",)),
    "transform": Kind(
        transform,
        {"preprocess": OF_LIST + " --space mni"},
        {"not finite": lambda whole: whole.replace(b"-1", b"1e999"),
         "flat": lambda whole: b"0 0 0\n" * 4},
    ),
    "scheme": Kind(
        scheme,
        {"preprocess": WITHIN + " --scheme {file}"},
        OF_YAML | {
            "no class": lambda whole: b"{name: a, classes: []}",
            "one class": lambda whole: b"{name: a, classes: [{name: b, values: [1]}]}",
            "words": lambda whole: whole.replace(b"60", b"sixty"),
            "fill": lambda whole: whole + b"fill: [1]\n",
            "rule": lambda whole: whole + b"rule: {a: 1}\n",
            "vast": lambda whole: whole.replace(b"60", b"6" * 60),
        },
        harmless=("half",),
    ),
    "regions": Kind(
        regions,
        {"preprocess": WITHIN + " --crop region:mine --regions {file}"},
        OF_YAML,
    ),
    "tissues": Kind(
        tissues,
        {"skeletonise": SKELETONISE + " --labels {file}"},
        OF_YAML | {"words": lambda whole: whole.replace(b"41", b"white")},
    ),
    "maps of sulci": Kind(maps, {"atlas": "atlas {source} -o {out}.npz"}, OF_GZIP),
    "atlas": Kind(
        atlas,
        {"label-sulci": "label-sulci {file} {annotated_cohort} -o {out}",
         "score sulci": SCORE_SULCI.format(
             cohort="{annotated_cohort}", atlas="{file}", out="{out}")},
        warned=("whole",),
    ),
}  # fmt: skip


TINY = (
    "--training.steps 1 --training.batch_size 4 --training.validate_every 1 "
    "--model.init_args.channels [8] --model.init_args.critic_channels [8] "
    "--model.init_args.critic_steps 2 --model.init_args.reconstruction_steps 1"
)
COHORT: Mapping[str, str] = {
    "train": f"train wgan_gp {{source}} -o {{out}} --device cpu {TINY}",
    "embed": "embed {small_run} {source} -o {out}",
    "score": "score {small_run} {source} -o {out} --reference {source}",
    "score void": "score void {source} -o {out} --reference {source}",
    "score with a scorer": "score {scorer} {source} -o {out}",
    "alter": "alter {source} -o {out} --size 1 --kind ball",
    "benchmark": "benchmark {small_run} {source} -o {out} --size 1 --kind ball",
    "latent": "latent clusters {small_run} {source} -o {out}",
    "evaluate-synthetic": "evaluate-synthetic {source} {source} -o {out}",
    "compare": "compare wgan_gp {source} -o {out} --steps 1 --device cpu",
    "search": "search wgan_gp {source} -o {out} --vary training.seed=1,2 --sampler grid " + TINY,
    "export": "export {small_run} -o {out} --reference {source}",
    "view": "view {source} --no-browser",
    "report": "report {source} -o {out}.html",
    "preprocess like it": "preprocess {volumes} -o {out} --n-procs 1 --layout-from {source}",
}
RUN: Mapping[str, str] = {
    "embed": "embed {source} {small_cohort} -o {out}",
    "score": "score {source} {small_cohort} -o {out}",
    "generate": "generate {source} -o {out} --n 1",
    "export": "export {source} -o {out}",
    "latent": "latent clusters {source} {small_cohort} -o {out}",
    "benchmark": "benchmark {source} {small_cohort} -o {out} --size 1 --kind ball",
    "report": "report {source} -o {out}.html",
    "view": "view {small_cohort} {source} --no-browser",
    "train from it": COHORT["train"].format(source="{small_cohort}", out="{out}")
    + " --weights {source}",
}
RESULTS: Mapping[str, str] = {
    "report": "report {source} -o {out}.html",
    "combine": "combine {source} {source} -o {out}",
    "view": "view {annotated_cohort} {source} --no-browser",
}
APPLIED_RUN: Mapping[str, str] = {
    "translator": "translate {source} {volumes} -o {out} --device cpu",
    "labeller": "label-sulci {source} {volumes} -o {out} --device cpu "
    "--reference {annotated_cohort}",
    "denoiser": "restore {source} {pictures} -o {out} --device cpu",
    "classifier": "classify {source} {pictures} -o {out} --device cpu",
}
APPLIED_COHORT: Mapping[str, Mapping[str, str]] = {
    "annotated_cohort": {
        "label-sulci": APPLIED["label-sulci"],
        "score sulci": SCORE_SULCI.format(cohort="{source}", atlas="{toy_atlas}", out="{out}"),
    },
    "paired_cohort": {"translate": APPLIED["translate"]},
    "bars": {
        "restore": TO_IMAGES["restore"],
        "classify": TO_IMAGES["classify"],
        "crossvalidate": "crossvalidate cnn_classifier {source} -o {out} --cv-folds 2 "
        "--model.init_args.target way --training.steps 1 --device cpu",
    },
}
LAYOUT = {"preprocess like it": COHORT["preprocess like it"]}
DESCRIPTION = ("dataset_description.json", "participants.tsv", "volumes.npy")
FOLDERS: Mapping[str, Kind] = {
    **{
        f"cohort, {name}": Kind(
            ("small_cohort", name),
            COHORT,
            OF_TABLE if name.endswith("tsv") else {},
            harmless=("preprocess like it",) * (name != DESCRIPTION[0]),
        )
        for name in DESCRIPTION
    },
    "run, config.yaml": Kind(("small_run", "config.yaml"), RUN, OF_YAML, ("report", "view")),
    "run, data.json": Kind(("small_run", "data.json"), RUN, harmless=("view",)),
    "run, best.ckpt": Kind(("small_run", "checkpoints/best.ckpt"), RUN, {}, ("view", "report")),
    **{
        f"run, {name}": Kind(("small_run", name), {"report": RUN["report"]}, OF_TABLE, ("report",))
        for name in ("metrics.csv", "cost.json", "environment.json")
    },
    **{
        f"bundle, {name}": Kind(("bundle", name), {n: RUN[n] for n in ("embed", "generate")})
        for name in ("config.yaml", "data.json", "models/model.safetensors")
    },
    **{
        f"{run}, {name}": Kind((run, name), {words.split()[0]: words})
        for run, words in APPLIED_RUN.items()
        for name in ("config.yaml", "data.json", "checkpoints/best.ckpt")
    },
    **{
        f"bundle of {run}, {name}": Kind((f"bundle of {run}", name), {words.split()[0]: words})
        for run, words in APPLIED_RUN.items()
        for name in ("data.json", "models/model.safetensors")
    },
    **{
        f"{cohort}, {name}": Kind((cohort, name), words)
        for cohort, words in APPLIED_COHORT.items()
        for name in DESCRIPTION
    },
    "paired_cohort, pairs.npy": Kind(
        ("paired_cohort", "pairs.npy"),
        {"train": "train vnet {source} -o {out} --device cpu --training.steps 1"},
    ),
    **{
        f"annotated_cohort, {name}": Kind(
            ("annotated_cohort", name),
            {"train": "train sulcus_segmenter {source} -o {out} --device cpu --training.steps 1",
             "alter": "alter {source} -o {out} --size 1"},
            OF_TABLE if name.endswith("tsv") else {},
            harmless=("alter/half",) * (name == "folds.tsv"),
        )
        for name in ("folds.npy", "folds.tsv")
    },
    "bundle, cohort": Kind(("bundle", "cohort/dataset_description.json"), LAYOUT),
    **{
        f"scorer, {name}": Kind(
            ("scorer", name), {"score": "score {source} {small_cohort} -o {out}"}
        )
        for name in ("scorer.json", "calibration/arrays.npz", "calibration/values.json",
                     "suitability/arrays.npz", "model/models/model.safetensors", "model/data.json")
    },
    **{
        f"sulcus_scorer, {name}": Kind(
            ("sulcus_scorer", name), {"score": "score {source} {annotated_cohort} -o {out}"}
        )
        for name in ("scores/named_sulci/arrays.npz", "scores/named_sulci/values.json",
                     "scores/named_sulci/atlas.npz", "scores/void/arrays.npz")
    },
    "scores, scores.tsv": Kind(("scores", "scores.tsv"), RESULTS, OF_TABLE, tuple(RESULTS)),
    "scores, scores.json": Kind(("scores", "scores.json"), RESULTS, {}, ("combine", "report")),
}  # fmt: skip


def cases(kinds: Mapping[str, Kind]) -> Iterator[tuple[str, str, str]]:
    """Yield kind, damage and command of every case.

    Files of ours have one reader each: damages of their own kind go through some commands only.
    """
    for name, kind in kinds.items():
        for damage in [*GENERIC, *kind.damages]:
            is_ours = isinstance(kind.make, tuple)
            several = None if damage in GENERIC or not is_ours else N_COMMANDS
            for command in list(kind.commands)[:several]:
                yield name, damage, command


def written_input(kind: Kind, folder: Path, fixture: Path | None) -> Path:
    """Write good input of a kind into a folder; returns the file that is to be damaged."""
    if not isinstance(kind.make, tuple):
        return kind.make(folder)
    assert fixture is not None
    shutil.copytree(fixture, folder, copy_function=os.link)
    return folder / kind.make[1]


def replace(file: Path, content: bytes) -> None:
    """Replace a file, and leave alone what else its content is linked to."""
    file.unlink()
    file.write_bytes(content)


def run(template: str, places: Mapping[str, Path], root: Path) -> tuple[int, str]:
    """Run a command on what may be damaged; returns its code, and what it said on stderr.

    Whatever the damage: only our own error, in lines that can be read, and nothing is written but
    to ``{out}``.

    Args:
        template: see `Kind.commands`.
        places: by field.
        root: folder that holds input and output.
    """
    before = set(root.rglob("*"))
    err, out = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in "eo")
    with redirect_stderr(err), redirect_stdout(out):
        code = main([*(word.format(**places) for word in template.split()), "--quiet"])
        err.flush()
    said = err.buffer.getvalue().decode()
    assert code in (0, 1, 2), said[:2000]
    for word in ("internal error", r"unexpected \w+ at \w+\.py", "Traceback"):
        assert not re.search(word, said), said[:2000]
    assert not any(len(line) > MAX_LINE for line in said.splitlines()), said[:2000]
    new = [path for path in root.rglob("*") if path not in before]
    outside = [path for path in new if not str(path).startswith(str(places["out"]))]
    assert not outside
    return code, said
