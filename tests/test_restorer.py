"""Erasing, restoring, and what a restored brain is evidence of."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FORTY_PHANTOMS, skeleton_source
from scipy import ndimage

from foldnorm.models.restorer import Restorer
from foldnorm.pipeline.bundle.volumes import BundleNetwork
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.edits import UNTOUCHED, RandEditFoldsd
from foldnorm.pipeline.data.items import transformed
from foldnorm.pipeline.runs.config import resolve_for
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.evidence import SMOOTHING, THRESHOLD, EvidenceScores
from foldnorm.pipeline.scoring.localisation import localisation
from foldnorm.pipeline.scoring.regions import strongest_regions
from foldnorm.pipeline.training.distributed import launch
from foldnorm.pipeline.training.setup import set_up
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.volumes import read_labels, read_map

MM, TWO_MM, RADII = (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 16.0)
STILL = [f"--training.augmentation.{kind}=0" for kind in ("rotation", "stretch", "shift")]


def two_sheets():
    """Inside, with two crossing sheets that are two folds; and their labels."""
    volume, folds = np.ones((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.uint16)
    volume[0] = 0
    volume[4:16, 8, 3:17], folds[4:16, 8, 3:17] = 2, 7
    volume[10, 10:18, 3:17], folds[10, 10:18, 3:17] = 2, 9
    return np.stack([volume, folds])


def edited_at(draw, volumes, kinds, most=1, voxel_size=MM, seed=0):
    """(I, J, K) of a volume, (1 or 2, I, J, K) with its fold labels, edited as a draw says."""
    folds_key = "folds" if len(volumes) > 1 else None
    edit = RandEditFoldsd("image", kinds, most, RADII, voxel_size=voxel_size, folds_key=folds_key)
    item = {"image": volumes[:1].astype(np.uint8), "folds": volumes[1:]}
    return transformed(item, [edit], seed, draw)["image"][0]


@pytest.mark.parametrize("kind", ["folds", "balls", "slabs", "-o", "noise"])
def test_only_sulcus_is_erased_and_the_same_at_each_draw(kind):
    volumes = two_sheets()
    healthy, erased = volumes[0].copy(), []
    for draw in range(200):
        edited = edited_at(draw, volumes, [kind], 2, seed=3)
        assert np.array_equal(healthy, volumes[0])
        changed = edited != healthy
        assert (healthy[changed] == 2).all()
        assert (edited[changed] == 1).all()
        erased.append(int(changed.sum()))
        assert np.array_equal(edited_at(draw, volumes, [kind], 2, seed=3), edited)
    untouched = np.mean(np.array(erased) == 0)
    assert untouched == pytest.approx(UNTOUCHED, abs=0.1)
    assert len(set(erased)) > (3 if kind == "folds" else 30) - 1
    if kind == "folds":
        a, b = (volumes[1] == 7).sum(), (volumes[1] == 9).sum()
        assert set(erased) == {0, a, b, a + b}


def test_a_volume_without_sulcus_is_left_alone():
    empty = np.stack([np.ones((6, 6, 6), np.uint8), np.zeros((6, 6, 6), np.uint8)])
    for kind in ("folds", "balls", "slabs", "-o", "noise"):
        for draw in range(8):
            assert (edited_at(draw, empty, [kind], 3) == 1).all()


def test_whole_folds_are_edited_where_labels_say_which():
    with pytest.raises(InputError, match="expected fold labels"):
        edited_at(0, two_sheets()[:1], ["balls", "copies"])


def test_it_learns_to_bring_back_what_it_knows():
    torch.manual_seed(0)
    model = Restorer(edits=["folds"], channels=[8, 16], convolutions=[1, 1])
    healthy = two_sheets()[0].astype(np.uint8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(150):
        edited = [edited_at(4 * step + n, two_sheets(), model.edits) for n in range(4)]
        pairs = torch.from_numpy(np.stack([[one, healthy] for one in edited]))
        terms = model.loss("restoration", pairs, None)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    volume, folds = two_sheets()
    missing = torch.from_numpy(np.where(folds == 9, 1, volume).astype(np.uint8))[None]
    with torch.no_grad():
        likely = torch.softmax(model.restore(missing), dim=1)[0, 2].numpy()
    assert likely[folds == 9].mean() > 0.9
    asked_for = ndimage.binary_dilation(folds == 9, np.ones((3, 3, 3)))  # with its margin
    assert likely[(volume == 1) & (folds == 0) & ~asked_for].mean() < 0.02


def test_it_is_asked_inside_the_brain_only_and_with_a_margin():
    model = Restorer(channels=[8], convolutions=[1], coordinates=True)
    volume, folds = two_sheets()
    edited = np.where(folds == 9, 1, volume).astype(np.uint8)
    pair = torch.from_numpy(np.stack([edited, volume.astype(np.uint8)]))[None]

    def loss_of(right):
        """Loss of a network that answers with given classes, surely."""
        answer = torch.from_numpy(right.astype(np.int64))[None]
        model.restore = lambda *_: 20.0 * torch.nn.functional.one_hot(answer, 3).movedim(-1, 1)
        return float(model.validation_loss(pair))

    wider = ndimage.binary_dilation(folds == 9, np.ones((3, 3, 3)))
    target = np.where(wider & (edited == 1), 2, volume)
    assert loss_of(target) < 1e-4
    assert loss_of(np.where(edited == 0, 2, target)) < 1e-4  # outside: not asked
    assert loss_of(np.where(edited == 2, 1, target)) < 1e-4  # what is there: not asked
    assert loss_of(volume) > 0.1  # without the margin
    assert loss_of(edited) > 0.5  # nothing restored


def test_where_a_voxel_lies_is_shown_to_it():
    torch.manual_seed(0)
    model = Restorer(channels=[8], convolutions=[1], coordinates=True)
    empty = torch.ones(1, 8, 8, 8, dtype=torch.uint8)
    with torch.no_grad():
        logits = model.restore(empty)[0, 2]
    assert (logits[1] - logits[5]).abs().max() > 1e-3


def test_a_volume_is_moved_with_and_without_what_was_erased_alike(phantom_cohort, tmp_path):
    turned = ["--model.init_args.channels", "[8]", "--model.init_args.convolutions", "[1]"]
    more = [*turned, *STILL]
    plain, moved = (
        set_up(resolve_for(phantom_cohort, "restorer", words), phantom_cohort, tmp_path / name,
               fabric=launch("cpu"), resume=False)
        for name, words in (("plain", more), ("moved", turned))
    )  # fmt: skip
    erased = np.zeros(2)
    for (before, whole), (edited, healthy) in zip(
        np.concatenate([plain.batches.batch(n).numpy() for n in range(6)]),
        np.concatenate([moved.batches.batch(n).numpy() for n in range(6)]),
        strict=True,
    ):
        assert not np.array_equal(healthy, whole)
        assert (healthy[edited != healthy] == 2).all()
        assert (edited[edited != healthy] == 1).all()
        erased += np.array([(edited != healthy).sum(), (before != whole).sum()])
    assert erased[0] == pytest.approx(erased[1], rel=0.3)  # some of it leaves the box
    assert erased[1] > 100
    plain.batches.close()
    moved.batches.close()


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="expected some edits to learn from"):
        Restorer(edits=[])
    with pytest.raises(ValueError, match="expected 0 < smallest ≤ largest"):
        Restorer(radii=[5, 2])


class Expects(torch.nn.Module):
    """Restores one fixed sheet everywhere, with a probability of its own."""

    edits, max_edits, radii = ("folds",), 1, RADII

    def restore(self, volumes, condition=None):
        logits = torch.zeros(len(volumes), 3, *volumes.shape[1:])
        logits[:, 1] = 6.0
        logits[:, 2, 5, 2:10, 2:10] = 9.0
        return logits


def healthy(number, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(number):
        volume = np.ones((12, 12, 12), np.uint8)
        volume[5, 2:10, 2:10] = 2
        volume[rng.integers(1, 11), rng.integers(1, 11)] = 2
        yield Brain(volume, {})


def test_what_is_missing_stands_out_by_all_scores_and_in_the_map():
    trained = TrainedModel(Expects(), torch.device("cpu"))
    scores = EvidenceScores(trained, SKELETON, TWO_MM).fit(list(healthy(20)))

    def without_the_sheet():
        for brain in healthy(6, seed=1):
            brain.volume[5, 2:10, 2:10] = 1
            yield brain

    before, after = scores.score(healthy(6, seed=1)), scores.score(without_the_sheet())
    assert list(before) == scores.names
    assert scores.directions == ("missing",)
    for name in before:
        assert (after[name] > before[name].max()).all(), name
    ((z,),) = scores.maps(list(without_the_sheet())[:1])
    sheet = np.zeros(z.shape, dtype=bool)
    sheet[5, 2:10, 2:10] = True
    assert z[sheet].min() > 5
    # Elsewhere nothing comes near a region, though the missing sheet moves what the rest of the
    # brain leads to expect there; next to it maps are smoothed.
    assert z[~ndimage.binary_dilation(sheet, iterations=4)].max() < THRESHOLD / 2


def test_evidence_outside_the_brain_counts_in_no_score():
    """The model expects folds where nobody has any brain, the more the more there is at a place."""

    class ExpectsOutside(Expects):
        def restore(self, volumes, condition=None):
            logits = super().restore(volumes)
            logits[:, 2, 0] = 3.0 * (volumes == 2)[:, 9].sum((1, 2))[:, None, None]
            return logits

    def cut(number, seed):
        for n, brain in enumerate(healthy(number, seed=seed)):
            brain.volume[0] = 0
            brain.volume[9] = 1
            brain.volume[9, 3, 3 : 3 + n % 4] = 2
            yield brain

    both = []
    for model in (Expects(), ExpectsOutside()):
        scores = EvidenceScores(TrainedModel(model, torch.device("cpu")), SKELETON, TWO_MM)
        both.append(scores.fit(list(cut(20, 0))).score(cut(6, 1)))
    for name in ("evidence_pooled", "evidence_sum"):
        assert both[1][name] == pytest.approx(both[0][name]), name


def test_evidence_is_smoothed_by_as_many_mm_at_any_resolution():
    trained = TrainedModel(Expects(), torch.device("cpu"))
    widths = []
    for voxel_size in ((1.0, 1.0, 1.0), TWO_MM):
        scores = EvidenceScores(trained, SKELETON, voxel_size)
        peak = np.zeros((1, 25, 25, 25), np.float32)
        peak[0, 12, 12, 12] = 1
        profile = scores.normative.smooth(peak)[0, :, 12, 12]
        offsets = np.arange(-12, 13) * voxel_size[0]
        widths.append(np.sqrt((profile * offsets**2).sum() / profile.sum()))
    assert widths == pytest.approx([SMOOTHING, SMOOTHING], rel=0.05)


def test_too_few_brains_to_compare_with_are_refused():
    trained = TrainedModel(Expects(), torch.device("cpu"))
    with pytest.raises(InputError, match="at least 8 healthy ones, got 5"):
        EvidenceScores(trained, SKELETON, TWO_MM).fit(list(healthy(5)))


SMALL = ["--model.init_args.channels", "[8, 8]", "--model.init_args.convolutions", "[1, 1]",
         "--training.steps", "4", "--training.validate_every", "2", "--device", "cpu"]  # fmt: skip


def train(cohort, out, *more):
    words = ["train", "restorer", cohort.folder, "-o", out, *SMALL]
    return main([*map(str, words), *more, "--quiet"])


def test_folds_need_labels_and_balls_do_not(small_cohort, tmp_path, capsys):
    assert train(small_cohort, tmp_path / "a") == 2
    assert "needs fold labels, and has none" in capsys.readouterr().err
    assert train(small_cohort, tmp_path / "b", "--model.init_args.edits", "[balls]") == 0
    assert train(small_cohort, tmp_path / "c", "--model.init_args.edits", "[balls]",
                 "--training.augmentation.dropout", "2") == 2  # fmt: skip
    assert "not for models that learn from what is erased" in capsys.readouterr().err


def test_evidence_is_scored_and_all_validation_brains_calibrate(tmp_path, capsys):
    words = ["preprocess", skeleton_source(tmp_path / "source", 40), "-o", tmp_path / "cohort",
             "--split-fractions", ".3", ".5", ".2", "--n-procs", "1", "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    cohort = Cohort.open(tmp_path / "cohort")
    run, out = tmp_path / "run", tmp_path / "scores"
    assert train(cohort, run, "--model.init_args.edits", "[balls]") == 0
    words = ["score", run, cohort.folder, "-o", out, "--split", "test", "--maps", "--device", "cpu"]
    assert main([*map(str, words), "--quiet"]) == 0
    validation = len(cohort.indices("validation"))
    sidecar = read_json(out / "scores.json")
    assert sidecar["calibrated_on"] == validation
    assert sidecar["learned_from"] == "its own edits (balls)"
    rows = read_tsv(out / "scores.tsv")
    assert {f"p_evidence_{kind}" for kind in ("top", "component", "pooled", "sum")} < set(rows[0])
    assert not any("latent" in name for name in rows[0])
    assert len(list((out / "maps").glob("*_desc-missing_z.nii.gz"))) == len(rows)
    assert (out / "regions.tsv").is_file()


def test_evidence_needs_brains_to_be_compared_with(phantom_cohort, tmp_path, capsys):
    assert train(phantom_cohort, tmp_path / "run") == 0
    words = ["score", tmp_path / "run", phantom_cohort.folder, "-o", tmp_path / "scores"]
    assert main([*map(str, words), "--device", "cpu"]) == 2
    assert "at least 8 healthy ones, got 1" in capsys.readouterr().err


def test_what_is_erased_in_training_are_folds_of_that_very_brain(phantom_cohort, tmp_path):
    more = ["--model.init_args.channels", "[8]", "--model.init_args.convolutions", "[1]", *STILL]
    config = resolve_for(phantom_cohort, "restorer", more)
    training = set_up(config, phantom_cohort, tmp_path, fabric=launch("cpu"), resume=False)
    seen = 0
    for number in range(6):
        pairs = training.batches.batch(number).numpy()
        for (edited, healthy), index in zip(
            pairs, training.batches.indices_of(number), strict=True
        ):
            assert np.array_equal(healthy, phantom_cohort.volumes[index])
            erased, folds = edited != healthy, phantom_cohort.folds[index]
            touched = np.unique(folds[erased])
            hull = ndimage.binary_dilation(healthy == 0)
            whole = np.isin(folds, touched[touched > 0]) & (healthy == 2) & ~hull
            assert (erased[whole]).all()
            assert not (erased & (hull | ((folds > 0) & ~whole))).any()
            seen += len(touched)
    assert seen > 6
    training.batches.close()


def test_the_strongest_regions_come_first_and_lie_where_they_are():
    z = np.zeros((20, 20, 20), np.float32)
    z[2:4, 2:4, 2:4] = 4  # as much above the threshold in sum would be 8
    z[10:14, 10:14, 10:14] = 3.5
    z[18, 18, 18] = 2.9
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-10, 0, 5)
    first, second = strongest_regions(z, affine, 3.0)
    assert [first[axis] for axis in "xyz"] == pytest.approx([-10 + 2 * 11.5, 23, 5 + 23])
    assert (first["mm3"], first["peak_z"], first["mass"]) == pytest.approx((512, 3.5, 32))
    assert second["mm3"] == pytest.approx(64)
    assert strongest_regions(np.zeros((4, 4, 4)), affine, 3.0) == []


def test_a_region_is_outlined_at_half_of_its_peak():
    """A peak of 20 on a slope, with a lower one on the same slope: 27 voxels of one component."""
    z = np.zeros((30, 5, 5), np.float32)
    z[1:28, 2, 2] = 4
    z[8:13, 2, 2] = (9.9, 10, 20, 10, 9.9)
    z[20, 2, 2] = 15
    (region,) = strongest_regions(z, np.eye(4), 3.0)
    assert region["voxels"].tolist() == [[9, 2, 2], [10, 2, 2], [11, 2, 2]]
    assert (region["mm3"], region["x"], region["peak_z"]) == (3, 10, 20)
    assert region["mass"] == pytest.approx((z[z >= 3] - 3).sum())  # of the whole component
    low = np.where(z > 0, np.float32(4), np.float32(0))  # half of it is below the threshold
    assert strongest_regions(low, np.eye(4), 3.0)[0]["mm3"] == 27


def test_maps_need_healthy_brains(small_cohort, tmp_path, capsys):
    few = [row["participant_id"] for row in small_cohort.rows[:5]]
    healthy, source = tmp_path / "healthy", small_cohort.folder.parent / "source"
    words = ["preprocess", source, "-o", healthy, "--layout-from", small_cohort.folder,
             "--participant-label", *few, "--n-procs", 1, "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    words = ["score", "void", small_cohort.folder, "-o", tmp_path / "out", "--reference", healthy,
             "--maps"]  # fmt: skip
    assert main(list(map(str, words))) == 2
    assert (
        f"at least 8 healthy ones, got 5 (more by --controls): {healthy}" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["copies", "sheets"])
def test_what_is_added_lies_inside_the_brain_where_nothing_was(kind):
    volumes = two_sheets()
    healthy, added = volumes[0].copy(), []
    for draw in range(100):
        edited = edited_at(draw, volumes, [kind], 2, seed=3)
        assert np.array_equal(healthy, volumes[0])
        changed = edited != healthy
        assert (healthy[changed] == 1).all()
        assert (edited[changed] == 2).all()
        added.append(int(changed.sum()))
    assert np.mean(np.array(added) == 0) < UNTOUCHED + 0.2
    assert len(set(added)) > 10
    empty = np.stack([np.zeros((6, 6, 6), np.uint8), np.zeros((6, 6, 6), np.uint8)])
    assert all((edited_at(draw, empty, [kind], 2) == 0).all() for draw in range(8))


def test_sizes_of_edits_are_in_mm():
    sizes = []
    for voxel in (1.0, 2.0):
        full = np.full((1, 40, 40, 40), 2, np.uint8)
        sizes.append(np.mean([
            (edited_at(n, full, ["balls"], voxel_size=(voxel,) * 3) != 2).sum() for n in range(60)
        ]))  # fmt: skip
    assert sizes[0] / sizes[1] > 3  # eight times, but for what the box cuts off


def test_a_fold_that_should_not_be_there_stands_out():
    class Takes(Expects):
        edits = ("folds", "copies")

    def plain(number):
        """Healthy brains; a short line of one in three is not expected."""
        for n, brain in enumerate(healthy(number, seed=1)):
            brain.volume[brain.volume == 2] = 1
            brain.volume[5, 2:10, 2:10] = 2
            brain.volume[2, 2, 2 : 2 + (n % 3 == 0)] = 2
            yield brain

    trained = TrainedModel(Takes(), torch.device("cpu"))
    scores = EvidenceScores(trained, SKELETON, TWO_MM).fit(list(plain(20)))
    assert scores.directions == ("missing", "unexpected")

    def with_a_sheet():
        for brain in plain(6):
            brain.volume[8, 2:10, 2:10] = 2
            yield brain

    before, after = scores.score(plain(6)), scores.score(with_a_sheet())
    for name in ("unexpected_top", "unexpected_component", "unexpected_pooled", "unexpected_sum"):
        assert (after[name] > before[name].max()).all(), name
    assert after["evidence_sum"] == pytest.approx(before["evidence_sum"], rel=0.05)
    ((_, z),) = scores.maps(list(with_a_sheet())[:1])
    sheet = np.zeros(z.shape, dtype=bool)
    sheet[8, 2:10, 2:10] = True
    assert z[sheet].min() > 5
    assert z[~ndimage.binary_dilation(sheet, iterations=4)].max() < 3


def test_evidence_is_compared_with_the_place_of_the_deletion(small_cohort):
    index = int(small_cohort.indices("test")[0])
    volume = np.array(small_cohort.volumes[index])
    sulcus = np.argwhere(volume == 2)
    gone = sulcus[np.linalg.norm(sulcus - sulcus[0], axis=1) < 4]
    altered = volume.copy()
    altered[tuple(gone.T)] = 1
    z = np.zeros(volume.shape, np.float32)
    nothing = localisation(small_cohort, index, altered, z, 3.0)
    assert (nothing["hit"], nothing["rank"], nothing["dice"]) == (0, 0, 0)
    assert np.isnan(nothing["error_mm"])
    z[tuple(gone.T)] = 4
    found = localisation(small_cohort, index, altered, z, 3.0)
    assert (found["hit"], found["rank"], found["dice"]) == (1, 1, 1)
    assert found["error_mm"] == pytest.approx(0, abs=1e-4)
    far = np.argwhere(volume == 0)[:30]
    z[tuple(far.T)] = 40
    second = localisation(small_cohort, index, altered, z, 3.0)
    assert (second["hit"], second["rank"]) == (0, 2)
    assert second["error_mm"] > 5


def test_maps_lie_in_the_grid_of_the_input_and_name_the_sulcus(many_phantoms, tmp_path, capsys):
    source, folder = tmp_path / "source", tmp_path / "cohort"
    shutil.copytree(many_phantoms, source, copy_function=os.link)
    words = ["preprocess", source, "-o", folder, "--voxel-size", 6, *FORTY_PHANTOMS,
             "--split-fractions", ".3", ".5", ".2", "--n-procs", 1, "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    cohort, run, out = Cohort.open(folder), tmp_path / "run", tmp_path / "scores"
    assert train(cohort, run, "--model.init_args.edits", "[folds, copies]") == 0
    words = ["score", run, folder, "-o", out, "--split", "test", "--maps", "--device", "cpu",
             "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    sidecar = read_json(out / "regions.json")
    for index in cohort.indices("test"):
        key = cohort.keys()[index]
        original = read_labels(Path(sidecar["maps_in_grid_of"][key]))
        for direction in ("missing", "unexpected"):
            z, affine = read_map(out / f"maps/{key}_desc-{direction}_z.nii.gz")
            p, _ = read_map(out / f"maps/{key}_desc-{direction}_p.nii.gz")
            assert z.shape == p.shape == original.data.shape
            assert np.array_equal(affine, original.affine)
            assert 0 < p.min() <= p.max() <= 1
            # The p of a voxel falls as its z rises.
            order = np.argsort(z, axis=None)
            assert p.ravel()[order[-1]] <= p.ravel()[order[0]]
    regions = read_tsv(out / "regions.tsv")
    assert {row["direction"] for row in regions} <= {"missing", "unexpected"}
    assert all(0 < float(row["p"]) <= 1 for row in regions)
    assert "warning" not in capsys.readouterr().err
    lost = cohort.keys()[int(cohort.indices("test")[0])]
    Path(sidecar["maps_in_grid_of"][lost]).unlink()
    assert main([*map(str, words), "--overwrite"]) == 0
    assert f"inputs of 1 brain are not where they were (such as {lost})" in capsys.readouterr().err
    z, _ = read_map(out / f"maps/{lost}_desc-missing_z.nii.gz")
    assert z.shape == cohort.shape


def test_regions_of_a_missing_fold_are_listed_with_a_sulcus_that_others_have_there(
    phantom_cohort, tmp_path
):
    altered, out = tmp_path / "altered", tmp_path / "scores"
    words = ["alter", phantom_cohort.folder, "-o", altered, "--size", "300", "--quiet"]
    assert main(list(map(str, words))) == 0
    words = ["score", "void", altered, "-o", out, "--reference", phantom_cohort.folder, "--maps",
             "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) in (0, 1)  # some may be flagged
    rows = read_tsv(out / "regions.tsv")
    assert {row["participant_id"] for row in rows} <= {
        row["participant_id"] for row in phantom_cohort.rows
    }
    assert any(row["sulcus"] for row in rows)
    assert all(float(row["mass"]) > 0 and row["direction"] == "missing" for row in rows)
    # All took part in calibration: neither a brain nor its regions and maps have a p-value.
    assert {row["p"] for row in rows} == {""}
    assert list((out / "maps").glob("*_z.nii.gz"))
    assert not list((out / "maps").glob("*_p.nii.gz"))


def test_an_exported_restorer_gives_the_evidence_of_the_run(small_cohort, tmp_path):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    assert train(small_cohort, run, "--model.init_args.edits", "[balls]") == 0
    assert main(["export", str(run), "-o", str(bundle), "--quiet"]) == 0
    volumes = torch.from_numpy(np.array(small_cohort.volumes[:2]))
    with torch.no_grad():
        ours = RunFolder.open(run).load().model.restore(volumes)
        theirs = BundleNetwork(bundle)(volumes[:, None])
    assert torch.equal(ours, theirs)
    card = (bundle / "docs/README.md").read_text()
    assert "foldnorm score . cohort -o scores --reference TRAINING_COHORT --maps" in card
