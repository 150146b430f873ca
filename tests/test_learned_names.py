"""Names that are learned from folds with names: also that a fold has none."""

import json

import numpy as np
import pytest
import torch
from scipy.special import softmax
from test_atlas import AFFINE, SHAPE, SULCI, maps, sheets

from foldnorm.models.fold_namer import FoldNamer
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.pipeline.training import learn_names
from foldnorm.pipeline.training.learn_names import learned_atlas
from foldnorm.preprocessing.cohort.cohort import FOLD_COLUMNS, FOLD_TABLE, FOLDS, VOLUMES, Cohort
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.core.arrays import write_array
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv, write_tsv
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.naming.alignment import transformed
from foldnorm.preprocessing.naming.atlas import SulcusAtlas
from foldnorm.preprocessing.naming.atlas_names import name_by_atlas
from foldnorm.preprocessing.naming.fold_features import FoldFeatures
from foldnorm.preprocessing.naming.learned_names import (
    LAYERS,
    class_probabilities,
    warn_of_coarse_voxels,
)

PEOPLE = 9
DIMPLES = (6, 7)  # folds without a name


def brain(seed):
    """Points (N, 3) of five sheets and two dimples beside the first one, and the number of each."""
    rng = np.random.default_rng(seed)
    points, numbers = sheets()
    patch = np.argwhere(np.ones((1, 3, 3))) * 4.0
    dimples = [np.array(corner) + patch for corner in ((-55, 17, 0), (-40, -7, 12))]
    points = np.concatenate([points, *dimples]) + rng.normal(0, 2, 3)
    return points, np.concatenate([numbers, np.repeat(DIMPLES, len(patch))])


def cohort_of(folder, n_people=PEOPLE, *, families=None, named=True):
    """Cohort of both hemispheres of people in MNI space."""
    who = [(f"sub-{n}", hemi) for n in range(n_people) for hemi in "LR"]
    volumes = np.full((len(who), *SHAPE), SKELETON.fill, np.uint8)
    folds = np.zeros(volumes.shape, np.uint16)
    rows, table = [], []
    for n, (person, hemi) in enumerate(who):
        points, numbers = brain(n)
        points = points * (-1 if hemi == "R" else 1, 1, 1)
        voxels = np.rint(transformed(points, np.linalg.inv(AFFINE))).astype(int)
        volumes[(n, *voxels.T)], folds[(n, *voxels.T)] = SKELETON.top, numbers
        own = {"participant_id": person, "hemi": hemi}
        rows.append({**own, "split": "train", "family": (families or {}).get(person, "")})
        table += [
            {**own, "label": k, "name": name if named else "", "size": 9, "voxels": 9}
            for k, name in enumerate((*SULCI, "", ""), start=1)
        ]
    write_array(folder / VOLUMES, volumes, shape=volumes.shape, dtype=volumes.dtype)
    write_array(folder / FOLDS, folds, shape=folds.shape, dtype=folds.dtype)
    write_participants(folder, rows)
    write_tsv(folder / FOLD_TABLE, table, FOLD_COLUMNS)
    preparation = {"scheme": SKELETON.as_dict(), "hull": "keep", "space": "mni",
                   "whole_brain": False, "mirror_right": False}  # fmt: skip
    record = {"preparation": preparation, "voxel_size": [4, 4, 4], "affine": AFFINE.tolist(),
              "phantom": True}  # fmt: skip
    write_description(folder, "test", record)
    return Cohort.open(folder)


@pytest.fixture(scope="module", autouse=True)
def _short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn_names, "STEPS", 150)
        patch.setattr(learn_names, "BATCH", 64)
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return cohort_of(tmp_path_factory.mktemp("named"))


@pytest.fixture(scope="module")
def atlas(cohort):
    return learned_atlas(cohort)


def test_voxels_in_which_no_folds_touch_are_said(cohort, atlas, caplog):
    said = "expected voxels of at most 2 mm, got 4 mm"
    AtlasLabeller(atlas, cohort)
    assert caplog.text.count(said) == 1
    AtlasLabeller(atlas, cohort, by_place=True)  # nothing learned is used
    warn_of_coarse_voxels((2.0, 1.0, 2.0), cohort.folder)
    assert caplog.text.count(said) == 1
    learned_atlas(cohort)
    assert caplog.text.count(said) == 2
    assert str(cohort.folder) in caplog.text


@pytest.mark.parametrize("hemi", ["L", "R"])
def test_a_fold_without_a_name_is_told_where_the_atlas_alone_names_it(atlas, hemi):
    points, numbers = brain(1000)
    voxels = np.rint(transformed(points, np.linalg.inv(AFFINE)))
    voxels, first = np.unique(voxels, axis=0, return_index=True)
    numbers = numbers[first]
    points = transformed(voxels, AFFINE) * (-1 if hemi == "R" else 1, 1, 1)
    side = atlas.side(hemi)
    assert any(name_by_atlas(side, points, numbers).names()[5:])
    found = name_by_atlas(side, points, numbers, learned=atlas.learned, hemi=hemi)
    assert found.names() == [*SULCI, "", ""]
    assert (found.probabilities()[:5] > 0.5).all()
    assert (found.posterior[5:].sum(axis=1) < 0.5).all()


def test_the_namer_without_torch_gives_what_the_network_does():
    torch.manual_seed(0)
    networks = [FoldNamer(6, 4).eval() for _ in range(2)]
    values = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    weights = {
        f"{layer}.{kind}": np.stack([own.state_dict()[f"{layer}.{kind}"] for own in networks])
        for layer in LAYERS for kind in ("weight", "bias")
    }  # fmt: skip
    weights |= {"mean": np.full(6, 0.5, np.float32), "spread": np.full(6, 2, np.float32)}
    found = class_probabilities(weights, FoldFeatures(values, np.ones(5)))
    with torch.no_grad():
        logits = [own(torch.from_numpy((values - 0.5) / 2)) for own in networks]
    assert np.allclose(found, np.mean([softmax(own, axis=1) for own in logits], axis=0), atol=1e-5)


def test_the_temperature_undoes_what_is_too_sure():
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(3), 4000)
    classes = np.array([rng.choice(3, p=own) for own in true])
    sure = true**2 / (true**2).sum(axis=1, keepdims=True)
    features = FoldFeatures(np.zeros((4000, 1), np.float32), np.ones(4000))
    example = learn_names.Example("sub-1", features, classes, 3)
    assert learn_names._temperature(sure, [example]) == pytest.approx(2, rel=0.1)
    assert learn_names._temperature(true, [example]) == pytest.approx(1, rel=0.1)


def test_networks_of_all_people_are_less_too_sure_than_those_that_lacked_some(monkeypatch):
    monkeypatch.setattr(learn_names, "STEPS", 200)
    monkeypatch.setattr(learn_names, "BATCH", 128)
    monkeypatch.setattr(learn_names, "MEMBERS", 1)
    rng = np.random.default_rng(0)

    def people(count):
        """Yield folds of two classes that one feature of ten tells apart, hardly."""
        for n in range(count):
            values, classes = rng.normal(size=(20, 10)), rng.integers(0, 2, 20)
            values[:, 0] += classes
            features = FoldFeatures(values.astype(np.float32), np.ones(20))
            yield learn_names.Example(f"sub-{n}", features, classes, 2)

    known, others = list(people(60)), list(people(200))
    parts = [{f"sub-{n}" for n in range(part, 60, 3)} for part in range(3)]
    lacking = learn_names._temperature(learn_names._cross_fitted(known, parts), known)
    weights = learn_names.train_fold_namer(known)
    likely = np.concatenate([class_probabilities(weights, own.features) for own in others])
    needed = learn_names._temperature(likely, others)
    kept = learn_names._of_all(lacking)
    assert 1 < kept < lacking
    assert abs(np.log(kept / needed)) < abs(np.log(lacking / needed))


def test_what_was_learned_is_in_the_file_of_the_atlas(atlas, tmp_path):
    atlas.save(tmp_path / "a.npz")
    again = SulcusAtlas.open(tmp_path / "a.npz")
    assert again.learned.about == atlas.learned.about
    assert again.learned.names == SULCI
    points, numbers = brain(7)
    one, other = (own.learned.posterior(points, numbers - 1, "L") for own in (atlas, again))
    assert np.array_equal(one, other)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


def test_an_atlas_without_a_learned_part_has_none(cohort, tmp_path):
    SulcusAtlas.from_cohort(cohort).save(tmp_path / "a.npz")
    assert SulcusAtlas.open(tmp_path / "a.npz").learned is None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("first.weight", None),
        ("first.weight", lambda own: own[:, :, 1:]),
        ("last.bias", lambda own: own[:, 1:]),
        ("mean", lambda own: own * np.nan),
        ("spread", lambda own: own * 0),
        ("counts", lambda own: own[1:]),
        ("affine", lambda own: own[:3]),
        ("first.weight", lambda own: own.astype(str)),
    ],
)
def test_a_damaged_learned_part_is_refused_by_its_file(atlas, tmp_path, name, change):
    atlas.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        kept = dict(arrays)
    own = kept.pop(f"learned.{name}")
    if change is not None:
        kept[f"learned.{name}"] = change(own)
    np.savez(tmp_path / "b.npz", **kept)
    with pytest.raises(InputError, match=r"learned names.*b\.npz"):
        SulcusAtlas.open(tmp_path / "b.npz")


@pytest.mark.parametrize("temperature", [0, -1, "warm", None, float("nan")])
def test_a_temperature_that_is_none_is_refused(atlas, tmp_path, temperature):
    atlas.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        kept = dict(arrays)
    about = json.loads(str(kept["about"]))
    about["learned"]["temperature"] = temperature
    kept["about"] = np.array(json.dumps(about))
    np.savez(tmp_path / "b.npz", **kept)
    with pytest.raises(InputError, match=r"learned names.*b\.npz"):
        SulcusAtlas.open(tmp_path / "b.npz")


def test_who_is_left_out_and_their_family_are_not_learned_from(tmp_path):
    twins = cohort_of(tmp_path / "c", 11, families={"sub-3": "one", "sub-7": "one"})
    found = learned_atlas(twins, ["sub-3"])
    assert found.learned.about["people"] == found.about["brains"] == 9
    assert learned_atlas(twins).learned.about["people"] == 10  # one of them is there twice


def test_fewer_than_eight_people_are_too_few(cohort, tmp_path):
    with pytest.raises(InputError, match="at least 8 people whose folds have names, got 7"):
        learned_atlas(cohort, ["sub-0", "sub-1"])


def test_an_atlas_that_learned_names_by_what_it_learned(cohort, tmp_path, capsys):
    words = ["atlas", cohort.folder, "-o", tmp_path / "a.npz", "--learn", "--without", "sub-0"]
    assert main(list(map(str, words))) == 0
    assert "right" in capsys.readouterr().out
    words = ["label-sulci", tmp_path / "a.npz", cohort.folder, "-o", tmp_path / "out", "--quiet"]
    assert main(list(map(str, words))) == 0
    rows = [row for row in read_tsv(tmp_path / "out/folds.tsv") if row["participant_id"] == "sub-0"]
    names = dict(enumerate((*SULCI, "", ""), start=1))
    assert len(rows) == 2 * len(names)
    assert all(row["sulcus"] == names[int(row["fold"])] for row in rows)


def test_bad_input_of_learning_is_one_line(cohort, tmp_path, capsys):
    nameless = cohort_of(tmp_path / "nameless", named=False)
    out = ["-o", tmp_path / "a.npz", "--learn"]
    for words, said in (
        (["atlas", maps(tmp_path / "m"), *out], "--learn requires a cohort"),
        (["atlas", nameless.folder, *out], "have no names"),
        (["atlas", cohort.folder, *out, "--without", "sub-1", "sub-2"], "got 7"),
        (["atlas", cohort.folder, *out, "--without", "sub-99"], "no participant sub-99"),
    ):
        assert main([*map(str, words), "--quiet"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line
    assert not (tmp_path / "a.npz").exists()
