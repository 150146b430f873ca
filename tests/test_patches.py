"""Learning from parts of volumes."""

import numpy as np
import pytest
import torch
from test_augmentation import at_draw, two_folds

from foldnorm.models.grids import coordinates
from foldnorm.models.restorer import Restorer
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.batches import Batches, Draws
from foldnorm.pipeline.data.items import transformed
from foldnorm.pipeline.data.patches import RandStructureWindowd, Window
from foldnorm.pipeline.data.sheet_affine import RandSheetAffined
from foldnorm.pipeline.runs.config import resolve_for
from foldnorm.pipeline.runs.predict import restored_in_windows
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training.distributed import launch
from foldnorm.pipeline.training.label_tasks import PATCH_MARGIN
from foldnorm.pipeline.training.setup import set_up
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import SKELETON

PATCH = ["--training.patch", "[8, 8, 8]", "--model.init_args.channels", "[8]",
         "--model.init_args.convolutions", "[1]"]  # fmt: skip
STILL = [f"--training.augmentation.{kind}=0" for kind in ("rotation", "stretch", "shift")]


def window_of(draws, volume, draw):
    """The window of a draw of an (I, J, K) volume."""
    return transformed({"image": np.array(volume)[None]}, [draws], 0, draw)["window"]


def test_a_window_goes_on_beyond_the_border():
    volume = np.arange(4, dtype=np.uint8)[:, None, None] + np.zeros((4, 1, 1), np.uint8)
    found = Window((-2, 0, 0), (9, 1, 1)).of(volume)
    assert found.ravel().tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3]
    assert Window((7, 0, 0), (2, 1, 1)).of(volume).ravel().tolist() == [3, 3]
    assert Window((2, 3, 4), (5, 6, 7)).wider(1) == Window((1, 2, 3), (7, 8, 9))


def test_a_patch_holds_structure_lies_within_and_is_the_same_at_each_draw():
    volume = np.ones((20, 16, 12), np.uint8)
    volume[2, 3, 4] = volume[17, 3, 4] = 2
    patches = RandStructureWindowd("image", (6, 16, 5), volume.shape, scheme=SKELETON)
    windows = [window_of(patches, volume, draw) for draw in range(60)]
    assert windows == [window_of(patches, volume, draw) for draw in range(60)]
    assert len({window.first for window in windows}) > 20
    for window in windows:
        assert min(window.first) >= 0
        assert (np.add(window.first, window.shape) <= volume.shape).all()
        assert (window.of(volume) == 2).any()
    empty = window_of(patches, np.ones(volume.shape, np.uint8), 0)
    assert empty.shape == (6, 16, 5)


def test_patches_larger_than_volumes_are_refused():
    with pytest.raises(InputError, match=r"those of the volumes, \(8, 8, 8\), got \(8, 9, 8\)"):
        RandStructureWindowd("image", (8, 9, 8), (8, 8, 8), scheme=SKELETON)
    with pytest.raises(InputError, match="sides from 1"):
        RandStructureWindowd("image", (8, 0, 8), (8, 8, 8), scheme=SKELETON)


def moved(draw, *limits, window=None, **options):
    """(2, …): a volume and its fold labels, or a part of them, moved as a draw says."""
    volumes = two_folds(32)
    item = {"image": volumes[:1], "folds": volumes[1:], "window": window}
    key = None if window is None else "window"
    move = RandSheetAffined("image", *limits, folds_key="folds", window_key=key, **options)
    found = at_draw(move, item, draw)
    return np.concatenate([found["image"], found["folds"]])


@pytest.mark.parametrize("limits", [(), (20, 0.1, 3), (0, 0, 3)])
def test_a_part_of_a_moved_volume_is_what_the_whole_holds_there(limits):
    window = Window((8, 5, 11), (16, 18, 12))
    inner = (slice(None), *[slice(PATCH_MARGIN, -PATCH_MARGIN)] * 3)
    labelled, odd = 0, 0
    for draw in range(8):
        part, whole = (moved(draw, *limits, window=w, thin=False) for w in (window, None))
        assert np.array_equal(part, window.of(whole))
        # Sheets are thinned voxel by voxel, and near the sides of a part otherwise.
        part, whole = (moved(draw, *limits, window=w) for w in (window, None))
        odd += (part != window.of(whole))[inner].any(axis=0).sum()
        labelled += (part[1] > 0)[inner[1:]].sum()
    assert labelled > 150
    assert odd <= 0.02 * labelled


def test_a_part_of_an_elastic_deformation_stays_whole_sheets():
    classes, labels = moved(1, elastic=2.0, window=Window((8, 5, 11), (16, 18, 12)))
    assert classes.shape == (16, 18, 12)
    assert set(np.unique(labels)) == {0, 3, 5}


def test_a_part_has_the_coordinates_of_its_place():
    whole = coordinates((9, 8, 7))
    windows = [Window((0, 0, 0), (4, 4, 4)), Window((5, 2, 3), (4, 4, 4))]
    places = torch.from_numpy(np.stack([window.place((9, 8, 7)) for window in windows]))
    found = coordinates((4, 4, 4), places)
    assert found.shape == (2, 3, 4, 4, 4)
    for own, window in zip(found.numpy(), windows, strict=True):
        assert np.allclose(own, window.of(whole[0].numpy()), atol=1e-6)
    full = torch.from_numpy(Window((0, 0, 0), (9, 8, 7)).place((9, 8, 7)))[None]
    assert torch.allclose(coordinates((9, 8, 7), full), whole, atol=1e-6)


def test_a_part_is_restored_as_the_whole_is_there():
    torch.manual_seed(0)
    model = Restorer(channels=[8], convolutions=[1], coordinates=True, norm=False).eval()
    volume = np.random.default_rng(0).integers(0, 3, (24, 24, 24)).astype(np.uint8)
    window = Window((4, 6, 8), (16, 16, 16))
    part = torch.from_numpy(window.of(volume))[None]
    place = torch.from_numpy(window.place(volume.shape))[None]
    inner = (..., *[slice(6, -6)] * 3)  # beyond the reach of its sides
    with torch.no_grad():
        whole = window.of(model.restore(torch.from_numpy(volume)[None])[0].numpy())
        told, untold = (model.restore(part, where)[0].numpy() for where in (place, None))
        assert torch.equal(
            model.restore(part, place), model.restore(part, place, model.feature_maps(part, place))
        )
    assert np.allclose(told[inner], whole[inner], atol=1e-5)
    assert np.abs(untold[inner] - whole[inner]).max() > 1e-2


def test_windows_put_together_are_the_whole():
    class Places(torch.nn.Module):
        """Answers with the class and the coordinates of each voxel."""

        edits, max_edits, radii = ("folds",), 1, (4.0, 16.0)

        def restore(self, volumes, condition=None):
            where = coordinates(volumes.shape[1:], condition)
            return torch.cat(
                [volumes[:, None].float(), where.expand(len(volumes), *where.shape[1:])], 1
            )

    volumes = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (2, 20, 17, 8), np.uint8))
    found = restored_in_windows(Places(), volumes, (8, 8, 8))
    assert torch.allclose(found, Places().restore(volumes), atol=1e-5)


def test_what_is_erased_from_a_patch_lies_there_and_never_on_the_hull(phantom_cohort, tmp_path):
    config = resolve_for(phantom_cohort, "restorer", [*PATCH, *STILL])
    training = set_up(config, phantom_cohort, tmp_path, fabric=launch("cpu"), resume=False)
    batches, touched = training.batches, 0
    patches = RandStructureWindowd("image", (8, 8, 8), phantom_cohort.shape, scheme=SKELETON)
    for number in range(12):
        pairs, places = batches.batch(number).numpy(), batches.condition(number)
        for n, index in enumerate(batches.indices_of(number)):
            volume = np.array(phantom_cohort.volumes[index])
            window = window_of(patches, volume, 2 * number + n)
            edited, healthy = pairs[n]
            assert np.array_equal(healthy, window.of(volume))
            assert np.array_equal(places[n], window.place(phantom_cohort.shape))
            outside = window.wider(1).of(volume) == 0
            beside = Window((1, 1, 1), (8, 8, 8)).of(_dilated(outside))
            assert not (beside & (edited != healthy)).any()
            touched += (edited != healthy).any()
    batches.close()
    assert touched > 3


def _dilated(mask):
    """Voxels of a mask, and those that share a face with them."""
    found = mask.copy()
    for axis in range(3):
        found |= np.roll(mask, 1, axis) | np.roll(mask, -1, axis)
    return found


def train(cohort, out, *more):
    words = ["train", "restorer", cohort.folder, "-o", out,
             "--training.steps", 4, "--training.validate_every", 4, "--device", "cpu", "--quiet",
             *PATCH, *more]  # fmt: skip
    return main(list(map(str, words)))


def test_a_resumed_run_sees_the_same_patches_and_scores_in_windows_of_their_size(
    phantom_cohort, tmp_path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(phantom_cohort, whole) == 0
    assert train(phantom_cohort, parts, "--training.session_steps", 3) == 75
    assert train(phantom_cohort, parts, "--resume", "auto") == 0
    one, other = (RunFolder(run).load_checkpoint("last")["model"] for run in (whole, parts))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    trained, shown = RunFolder.open(whole).load(), []
    restore = trained.model.restore
    trained.model.restore = lambda *given: shown.append(given) or restore(*given)
    assert trained.restore(phantom_cohort[0]).shape[1:] == phantom_cohort.shape
    assert {volumes.shape[1:] for volumes, _ in shown} == {(8, 8, 8)}


@pytest.mark.parametrize(
    ("name", "reason"),
    [("hypersphere_classifier", "HypersphereClassifier learns from whole volumes"),
     ("beta_vae", "BetaVAE learns from whole volumes")],
)  # fmt: skip
def test_models_of_whole_volumes_refuse_patches(name, reason, phantom_cohort, tmp_path, capsys):
    words = ["train", name, phantom_cohort.folder, "-o", tmp_path / "a",
             "--training.patch", "[8, 8, 8]"]  # fmt: skip
    assert main(list(map(str, words))) == 2
    assert reason in capsys.readouterr().err


def test_processes_share_out_the_patches_of_one(phantom_cohort):
    patches = RandStructureWindowd("image", (8, 8, 8), phantom_cohort.shape, scheme=SKELETON)
    cut = RandSheetAffined("image", window_key="window")

    def batches(rank, world_size):
        draws = Draws(
            phantom_cohort.volumes, phantom_cohort.indices("train"), transforms=[patches, cut],
        )  # fmt: skip
        found = Batches(draws, 2, rank=rank, world_size=world_size)
        return found.batch(3), found.condition(3)

    (whole, places), parts = batches(0, 1), [batches(rank, 2) for rank in range(2)]
    assert torch.equal(whole, torch.cat([volumes for volumes, _ in parts]))
    assert torch.equal(places, torch.cat([told for _, told in parts]))
    assert not torch.equal(places[0], places[1])
