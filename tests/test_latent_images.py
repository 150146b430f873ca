"""What a latent space of images holds: tables, and pictures of images in the place of volumes."""

import json

import numpy as np
import pytest
from conftest import IMAGE_SIDE, train_images
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.latent.mean_brain import mean_brain
from foldnorm.pipeline.latent.space import LatentSpace
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_tsv


@pytest.fixture(scope="module")
def coder(bars, tmp_path_factory):
    """A VAE of bars."""
    words = ["--model.init_args.channels", "[8,16]", "--model.init_args.latent_dim", "4",
             "--training.steps", "150", "--training.batch_size", "32"]  # fmt: skip
    return train_images(bars, tmp_path_factory.mktemp("coder") / "run", "image_vae", *words)


def latent(analysis, run, cohort, out, *more):
    words = ["latent", analysis, run, cohort, "-o", out, *more, "--device", "cpu", "--quiet"]
    return main(list(map(str, words)))


def grey(path):
    return np.array(Image.open(path)).astype(float)


def test_every_analysis_but_one_takes_images(coder, bars, tmp_path):
    out, keys = tmp_path / "latent", Cohort.open(bars).keys()
    first, last = keys[0], keys[-1]
    assert latent("projection", coder, bars, out) == 0
    assert latent("clusters", coder, bars, out) == 0
    assert latent("probe", coder, bars, out, "--columns", "way") == 0
    assert latent("mean", coder, bars, out) == 0
    assert latent("neighbours", coder, bars, out, "--brain", first) == 0
    assert latent("interpolate", coder, bars, out, "--brain", first, "--to", last) == 0
    assert {row["image"] for row in read_tsv(out / "probes_brains.tsv")} <= {
        row["image"] for row in Cohort.open(bars).rows
    }
    images = grey(out / "neighbours-000.png")
    assert np.array_equal(images, np.array(Cohort.open(bars).volumes[0]))
    assert len(list(out.glob("interpolation-*.png"))) == 9
    assert Image.open(out / "interpolation.gif").n_frames == 16
    tiles = grey(out / "projection_slices.png")
    assert tiles.shape[0] >= 3 * IMAGE_SIDE  # 120 images, 40 a row
    page = tmp_path / "report.html"
    assert main(["report", str(out), "-o", str(page), "--quiet"]) == 0
    text = page.read_text(encoding="utf-8")
    for shown in ("Mean image", "A brain and its neighbours", "Interpolation", "Projection"):
        assert f'alt="{shown}"' in text or f"<h3>{shown}" in text
    (points,) = text.split('data-part="data">')[1:]
    data = json.loads(points.partition("</script>")[0])
    assert data["tile"] == [IMAGE_SIDE, IMAGE_SIDE, 40]
    assert data["palette"] == []


def test_the_mean_is_that_of_what_codes_bring_back(coder, bars):
    space = LatentSpace.open(coder, bars, ["validation"], "cpu")
    found = mean_brain(space)
    each = np.stack([image[0] for image in space.decode(space.codes)])
    assert found.average.shape == (1, IMAGE_SIDE, IMAGE_SIDE)
    assert found.average[0] == pytest.approx(each.mean(axis=0), abs=1e-5)
    assert found.of_mean_code.shape == (IMAGE_SIDE, IMAGE_SIDE)
    assert np.abs(found.of_mean_code - found.average[0]).max() > 1e-3


def test_the_ends_of_a_path_are_reconstructions(coder, bars, tmp_path):
    first, last = Cohort.open(bars).keys()[:2]
    out = tmp_path / "latent"
    assert latent("interpolate", coder, bars, out, "--brain", first, "--to", last) == 0
    assert main(["restore", str(coder), str(bars), "-o", str(tmp_path / "back"), "--quiet"]) == 0
    for name, key in (("000", first), ("008", last)):
        back = grey(tmp_path / f"back/{key}_desc-restored.png")
        assert np.abs(grey(out / f"interpolation-{name}.png") - back).max() <= 1


def test_what_only_classes_have_is_refused_in_one_line(coder, bars, tmp_path, capsys):
    assert latent("dimensions", coder, bars, tmp_path / "latent") == 2
    said = capsys.readouterr().err
    assert "ranked by the nats of classes, which images have none of" in said
    assert not (tmp_path / "latent/dimensions.tsv").exists()
