"""Fixtures: small volumes, a small cohort, and the real data where it is present."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from scipy import ndimage
from threadpoolctl import threadpool_limits

from foldnorm.models.noise import StepNoise
from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.io.volumes import write_labels

# Compilation of a kernel counts in the first example: no test asserts speed.
settings.register_profile("foldnorm", deadline=None)
settings.load_profile("foldnorm")

# One thread computes, here and in the processes that tests start: what they train is tiny, and
# threads that wait for a core, beside other work, would make that many times slower.
os.environ["OMP_NUM_THREADS"] = "1"
threadpool_limits(1)
torch.set_num_threads(1)

pytest_plugins = ["corpus_fixtures"]
DATA_VARIABLE = "FOLDNORM_TEST_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real volumes; the test is skipped where there is none."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, default))
    if not folder.is_dir():
        pytest.skip(f"no real volumes here; point {DATA_VARIABLE} at them")
    return folder.resolve()


@pytest.fixture(scope="session")
def real_skeleton(real_data: Path) -> Path:
    found = sorted(real_data.glob("morphologist/hcp/**/Lskeleton_100206.nii.gz"))
    if not found:
        pytest.skip("Lskeleton_100206 is not among the real volumes")
    return found[0]


CHROMIUM_FLAGS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; the test is skipped where there is none."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """A page, and what it complained of or asked for."""

    def __init__(self, browser, **options):
        self.page = browser.new_page(**options)
        self.complaints, self.requests = [], []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on("request", lambda request: self.requests.append(request.url))

    def outside(self, *own):
        """Requests to anywhere but the page itself and addresses that begin so."""
        return [url for url in self.requests if not url.startswith(("data:", "blob:", *own))]


def colours_of(element) -> int:
    """Return the number of colours that an element shows: few if it is blank."""
    picture = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    return len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0))


def unnamed_controls(page) -> list[str]:
    """Controls and pictures of a page that a screen reader could not name."""
    return page.evaluate("""() => [...document.querySelectorAll(
        "input, select, button, canvas, img, [role=img]")].filter((e) => {
      const text = e.getAttribute("aria-label") || e.getAttribute("alt") ||
        (e.tagName === "BUTTON" ? e.textContent : "") || (e.labels && e.labels[0]?.textContent);
      return !(text && text.trim());
    }).map((e) => e.outerHTML.slice(0, 80))""")


def libraries_of(script: str, among: Iterable[str]) -> set[str]:
    """Which of these libraries a fresh process has loaded by the end of a script."""
    code = f"{script}\nimport sys\nprint(*(set({sorted(among)}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def script_of(words: Sequence[object], codes: Sequence[int] = (0,)) -> str:
    """Script of `libraries_of` that runs a command, which must end with one of these codes."""
    run = f"assert main({[*map(str, words)]}) in {tuple(codes)}"
    return f"from foldnorm.pipeline.cli import main\n{run}"


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write any array as NIfTI, right or wrong, without our own writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def skeleton_volume(seed: int = 0, shape: tuple[int, int, int] = (24, 24, 24)) -> np.ndarray:
    """A raw skeleton: a box of inside with two crossing sheets that vary with the seed."""
    rng = np.random.default_rng(seed)
    volume = np.full(shape, 11, dtype=np.int16)
    volume[2:-2, 2:-2, 2:-2] = 0
    volume[2:-2, int(rng.integers(6, 18)), 2 : int(rng.integers(12, 22))] = 60
    volume[int(rng.integers(6, 18)), 2 : int(rng.integers(12, 22)), 2:-2] = 60
    return volume


def skeleton_source(folder: Path, count: int) -> Path:
    """A folder of NIfTI skeletons ``sub-s00.nii.gz``…"""
    for n in range(count):
        write_labels(folder / f"sub-s{n:02d}.nii.gz", skeleton_volume(n), np.eye(4))
    return folder


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """24 skeletons of 16³ after a downsampling by 1.5, split 0.5 / 0.25 / 0.25."""
    folder = tmp_path_factory.mktemp("small")
    source = skeleton_source(folder / "source", 24)
    out = folder / "cohort"
    code = main(
        ["preprocess", str(source), "-o", str(out), "--voxel-size", "1.5", "--pad", "16,16,16",
         "--split-fractions", "0.5", "0.25", "0.25", "--n-procs", "1", "--quiet"]
    )  # fmt: skip
    assert code == 0
    return Cohort.open(out)


def draw_phantoms(source: Path, count: int, voxel_size: int) -> Path:
    """Draw a source tree of phantoms."""
    words = ["--subjects", str(count), "--voxel-size", str(voxel_size), "--n-procs", "1"]
    assert main(["phantom", "-o", str(source), *words, "--quiet"]) == 0
    return source


@pytest.fixture(scope="session")
def phantom_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve coarse phantoms as a source tree."""
    return draw_phantoms(tmp_path_factory.mktemp("phantoms") / "source", 12, 2)


@pytest.fixture(scope="session")
def many_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty coarser phantoms as a source tree."""
    return draw_phantoms(tmp_path_factory.mktemp("many-phantoms") / "source", 60, 3)


FORTY_PHANTOMS = ["--participant-label", *(f"phantom{number:05d}" for number in range(40))]


@pytest.fixture(scope="session")
def phantom_cohort(phantom_source: Path) -> Cohort:
    """Twelve phantoms at 4 mm, 32³ at most, with fold labels."""
    out = phantom_source.parent / "cohort"
    code = main(
        ["preprocess", str(phantom_source), "-o", str(out), "--voxel-size", "4",
         "--crop", "mm:-72,-8,-70,-6,-28,36", "--split-fractions", "0.4", "0.2", "0.4",
         "--n-procs", "1", "--quiet"]
    )  # fmt: skip
    assert code == 0
    return Cohort.open(out)


TINY_TRAINING = [
    "--training.steps", "4", "--training.batch_size", "4", "--training.log_every", "1",
    "--training.validate_every", "2", "--model.init_args.channels", "[8]",
    "--model.init_args.critic_channels", "[8]", "--model.init_args.critic_steps", "2",
    "--model.init_args.reconstruction_steps", "1",
]  # fmt: skip


@pytest.fixture(scope="session")
def small_run(small_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WGAN-GP trained for four steps on the small cohort."""
    out = tmp_path_factory.mktemp("run") / "run"
    code = main(
        ["train", "wgan_gp", str(small_cohort.folder), "-o", str(out),
         "--device", "cpu", "--quiet", *TINY_TRAINING]
    )  # fmt: skip
    assert code == 0
    return out


def annotated_source(folder: Path, count: int) -> Path:
    """A tree of left skeletons, each with its grey-white volume and the labels of its two folds."""
    for n in range(count):
        skeleton = skeleton_volume(n)
        sheet = (skeleton == 60).sum(axis=(0, 2)).argmax()
        folds = np.where(skeleton == 60, 2, 0).astype(np.uint16)
        folds[:, sheet] = np.minimum(folds[:, sheet], 1)
        tissue = np.where(skeleton == 0, 100, 0).astype(np.int16)
        tissue[ndimage.distance_transform_cdt(skeleton == 0) > 2] = 200
        place = folder / f"s{n}" / "t1mri/default_acquisition/default_analysis/segmentation"
        for stem, volume in (("skeleton", skeleton), ("folds", folds), ("grey_white", tissue)):
            write_nifti(place / f"L{stem}_s{n}.nii.gz", volume)
    (folder / "fold_names.tsv").write_text("label\tname\n1\tlong\n2\tother\n")
    return folder


@pytest.fixture(scope="session")
def annotated_cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """36 skeletons of 16³ with named folds, half of them for validation."""
    folder = tmp_path_factory.mktemp("annotated")
    annotated_source(folder / "source", 36)
    return prepare_annotated(folder, "cohort")


@pytest.fixture(scope="session")
def paired_cohort(annotated_cohort: Cohort) -> Cohort:
    """Annotated skeletons with their grey-white volumes."""
    return prepare_annotated(annotated_cohort.folder.parent, "paired", "--pair", "grey-white")


def prepare_annotated(folder: Path, name: str, *more: str) -> Cohort:
    words = ["preprocess", str(folder / "source"), "-o", str(folder / name), "--voxel-size", "1.5",
             "--pad", "16,16,16", "--split-fractions", "0.25", "0.5", "0.25", "--quiet",
             "--n-procs", "1"]  # fmt: skip
    assert main([*words, *more]) == 0
    return Cohort.open(folder / name)


FEW_LEVELS = [
    "--training.steps", "4", "--training.batch_size", "4", "--training.validate_every", "2",
    "--model.init_args.channels", "[8,8]", "--model.init_args.convolutions", "[1,1]",
    "--device", "cpu", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="session")
def translator(paired_cohort: Cohort) -> Path:
    """Makes grey-white volumes of skeletons, after four steps."""
    out = paired_cohort.folder.parent / "translator"
    assert main(["train", "vnet", str(paired_cohort.folder), "-o", str(out), *FEW_LEVELS]) == 0
    return out


@pytest.fixture(scope="session")
def labeller(annotated_cohort: Cohort) -> Path:
    """Labels the two folds, after four steps."""
    out = annotated_cohort.folder.parent / "labeller"
    words = ["train", "sulcus_segmenter", str(annotated_cohort.folder), "-o", str(out)]
    assert main([*words, *FEW_LEVELS]) == 0
    return out


def noise_of(batch: int, step: int = 0) -> StepNoise:
    """The noise of a phase, on the CPU."""
    return StepNoise((0, step, 0), batch, torch.device("cpu"))


IMAGE_SIDE = 16


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 people with an image each: a bright bar, upright or lying; some without a class."""
    source = tmp_path_factory.mktemp("bars") / "source"
    source.mkdir()
    rng, rows = np.random.default_rng(0), ["file\tparticipant_id\tway"]
    for n in range(120):
        image = rng.normal(60, 10, (IMAGE_SIDE, IMAGE_SIDE))
        place = int(rng.integers(3, IMAGE_SIDE - 4))
        image[place : place + 2] = 200
        way = "upright" if n % 2 else "lying"
        image = image.T if n % 2 else image
        Image.fromarray(image.round().astype(np.uint8)).save(source / f"{n:03d}.png")
        rows.append(f"{n:03d}.png\tp{n}\t{'n/a' if n % 10 == 0 else way}")
    (source / "participants.tsv").write_text("\n".join(rows) + "\n")
    out = source.parent / "cohort"
    words = ["images", str(source), "-o", str(out), "--split-fractions", ".6", ".2", ".2",
             "--quiet"]  # fmt: skip
    assert main(words) == 0
    return out


def train_images(cohort: Path, out: Path, config: str, *words: str) -> Path:
    """Train a model of images; returns its run folder."""
    command = ["train", config, str(cohort), "-o", str(out), "--quiet"]
    assert main([*command, "--device", "cpu", *words]) == 0
    return out


CLASSIFYING = [
    "--model.init_args.target", "way", "--model.init_args.widths", "[8,16]",
    "--model.init_args.hidden", "32", "--training.steps", "60", "--training.batch_size", "32",
    "--training.learning_rate", "3e-3",
]  # fmt: skip
DENOISING = [
    "--model.init_args.noise_factor", "0.2", "--model.init_args.widths", "[8,16]",
    "--training.steps", "100", "--training.batch_size", "16", "--training.learning_rate", "5e-3",
]  # fmt: skip


@pytest.fixture(scope="session")
def classifier(bars: Path) -> Path:
    """Tells upright bars from lying ones."""
    return train_images(bars, bars.parent / "classifier", "cnn_classifier", *CLASSIFYING)


@pytest.fixture(scope="session")
def denoiser(bars: Path) -> Path:
    """Takes noise from bars."""
    return train_images(bars, bars.parent / "denoiser", "denoising_autoencoder", *DENOISING)
