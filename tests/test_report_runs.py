"""What the report says of a run is what its kind of model did."""

import numpy as np
import pytest
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.report import runs as words
from foldnorm.pipeline.runs.metrics_log import MetricsLog

SIDE, GAP, SCALE = 16, 2, 3


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("generator/loss critic/loss validation/dice samples/volume_ratio", words.RECONSTRUCTION),
        ("reconstruction/loss validation/dice", words.RECONSTRUCTION),
        ("reconstruction/loss validation/psnr samples/spread_ratio", words.IMAGES),
        ("critic/loss generator/loss validation/psnr samples/spread_ratio", words.IMAGES),
        ("reconstruction/loss validation/psnr", words.REPAIR),
        ("restoration/loss validation/psnr validation/mask_iou", words.REPAIR),
        ("restoration/loss validation/restored validation/invented", words.RESTORATION),
        ("diffusion/loss validation/loss samples/spread_ratio", words.DIFFUSION),
        ("diffusion/loss validation/loss samples/volume_ratio", words.DIFFUSION),
        ("reconstruction/loss diffusion/loss validation/dice", words.LATENT_DIFFUSION),
        ("classification/loss validation/accuracy", words.CLASSIFICATION),
        ("separation/loss validation/loss", words.SEPARATION),
        ("recognition/loss validation/sulcus_dice", words.RECOGNITION),
        ("translation/loss validation/dice_grey", words.TRANSLATION),
        ("critics/loss generators/loss validation/dice_grey", words.TRANSLATION),
    ],
)
def test_the_words_are_those_of_the_kind(columns, expected, tmp_path):
    metrics = MetricsLog(tmp_path / "metrics.csv")
    metrics.add(1, dict.fromkeys(columns.split(), 0.5))
    assert words._words(metrics) is expected


def test_latent_diffusion_shows_how_noise_comes_and_goes(small_cohort, tmp_path):
    sizes = ["first_stage.init_args.channels=[8]", "first_stage.init_args.code_channels=2",
             "channels=[8]", "attention=[false]", "sampling_steps=8"]  # fmt: skip
    run, page = tmp_path / "run", tmp_path / "report.html"
    command = ["train", "latent_ddpm", str(small_cohort.folder), "-o",
               str(run), "--device", "cpu", "--quiet", "--training.steps", "4",
               "--training.batch_size", "2"]  # fmt: skip
    assert main([*command, *(f"--model.init_args.{size}" for size in sizes)]) == 0
    picture = np.asarray(Image.open(run / "samples/step-0000004.png"))
    # Three slices each of a volume, its reconstruction, and four stages of its diffusion.
    assert picture.shape[1] == SCALE * 18 * (SIDE + GAP)
    tiles = picture[: SCALE * SIDE].reshape(SCALE * SIDE, 18, -1, 3)[:, :, : SCALE * SIDE]
    assert not np.array_equal(tiles[:, 6], tiles[:, 15])  # after a quarter, and at the end
    assert main(["report", str(run), "-o", str(page), "--quiet"]) == 0
    assert words.LATENT_DIFFUSION.picture in page.read_text(encoding="utf-8")
