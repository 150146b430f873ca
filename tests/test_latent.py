"""Latent analyses on codes whose answer is known."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch

from foldnorm.models.losses import class_cross_entropy
from foldnorm.pipeline.artifacts import NEIGHBOUR_VOLUME
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.latent import probes
from foldnorm.pipeline.latent.clusters import find_clusters
from foldnorm.pipeline.latent.dimensions import (
    measure_effects,
    predict_effects,
    rank_dimensions,
    sweep,
    voxels_moved,
)
from foldnorm.pipeline.latent.interpolation import interpolate
from foldnorm.pipeline.latent.mean_brain import mean_brain
from foldnorm.pipeline.latent.morphometry import with_morphometry
from foldnorm.pipeline.latent.neighbours import nearest
from foldnorm.pipeline.latent.outputs import write_neighbours
from foldnorm.pipeline.latent.probes import probe
from foldnorm.pipeline.latent.space import LatentSpace, principal_axes
from foldnorm.pipeline.latent.surfaces import surface, write_surface
from foldnorm.pipeline.report.latent import latent_section
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json, write_tsv


def cloud(number=60, dimensions=200, seed=0):
    """One normal cloud in more dimensions than brains."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((number, dimensions)) * np.linspace(1, 0.1, dimensions)


def clouds(number=60, apart=6.0):
    """Three of them."""
    codes = cloud(number)
    codes[number // 3 :, 0] += apart
    codes[2 * number // 3 :, 1] += apart
    return codes


def test_principal_axes_keep_all_distances():
    codes = cloud(20)
    turned = principal_axes(codes)
    assert turned.shape == (20, 19)
    before = np.linalg.norm(codes[:, None] - codes, axis=-1)
    assert np.allclose(np.linalg.norm(turned[:, None] - turned, axis=-1), before)
    assert (np.diff(turned.var(axis=0)) <= 1e-9).all()
    assert principal_axes(np.ones((5, 3))).shape == (5, 3)


def test_one_cloud_is_one_cluster():
    found = find_clusters(cloud(), 4)
    assert found.gap_k == 1
    assert found.p_one_cloud > 0.05
    assert found.sentence.startswith("There is no sign of more than one cluster")
    assert np.isnan(found.clusterings[0].silhouettes).all()


def test_three_clouds_are_three_clusters():
    found = find_clusters(clouds()[:, :20], 5)
    assert found.p_one_cloud < 0.05
    assert found.sentence.startswith("The brains fall into 3 clusters")
    best = found.clusterings[2]
    assert best.k == 3
    assert sorted(np.bincount(best.labels)) == [20, 20, 20]
    assert best.stability > 0.95
    assert best.as_row()["silhouette"] == pytest.approx(best.silhouettes.mean())


def test_too_few_brains_for_clusters_are_refused():
    with pytest.raises(InputError, match="got k = 5 and 8 brains"):
        find_clusters(cloud(8), 5)


def rows(values, **others):
    return [
        {"participant_id": f"p{n}", "x": str(value), **{k: v[n] for k, v in others.items()}}
        for n, value in enumerate(values)
    ]


def test_what_a_code_holds_can_be_read_off_it(monkeypatch):
    monkeypatch.setattr(probes, "N_PERMUTATIONS", 39)
    monkeypatch.setattr(probes, "N_BOOTSTRAPS", 100)
    codes = cloud(100, 30)
    age = 40 + 5 * codes[:, 0]
    found = probe(codes, rows(age), "x")
    assert found.measure == "r"
    assert found.value > 0.9
    assert found.low < found.value < found.high
    assert found.p == pytest.approx(1 / 40)
    assert np.corrcoef(found.predictions, age)[0, 1] == pytest.approx(found.value)
    sex = np.where(codes[:, 1] > 0, "F", "M")
    found = probe(codes, rows(sex), "x")
    assert (found.measure, found.chance) == ("auc", 0.5)
    assert found.value > 0.85
    site = np.digitize(codes[:, 0], [-0.5, 0.5]) + 1
    found = probe(codes, rows(site), "x:category")
    assert (found.measure, found.chance) == ("balanced accuracy", pytest.approx(1 / 3))
    assert found.value > 0.6


@pytest.mark.parametrize("kind", ["quantity", "category"])
def test_what_a_code_does_not_hold_cannot(kind, monkeypatch):
    monkeypatch.setattr(probes, "N_PERMUTATIONS", 19)
    monkeypatch.setattr(probes, "N_BOOTSTRAPS", 100)
    rng, found = np.random.default_rng(1), []
    for seed in range(12):
        values = rng.standard_normal(60) if kind == "quantity" else rng.choice(["a", "b"], 60)
        found.append(probe(cloud(60, 40, seed), rows(values), "x", seed=seed))
    assert sum(f.p <= 0.05 for f in found) <= 2
    assert 0.2 < np.median([f.p for f in found]) < 0.9
    # Not below chance either, as pooled predictions of nothing are.
    assert np.mean([f.value for f in found]) == pytest.approx(found[0].chance, abs=0.08)


def test_two_hemispheres_of_a_participant_stand_on_one_side():
    """Codes that only tell who it is do not predict what participants have by chance."""
    rng = np.random.default_rng(0)
    who = rng.standard_normal((40, 60)).repeat(2, axis=0)
    codes = who + 0.01 * rng.standard_normal(who.shape)
    ages = rng.uniform(20, 80, 40).repeat(2)
    table = [
        {"participant_id": f"p{n // 2}", "hemi": "LR"[n % 2], "x": str(age)}
        for n, age in enumerate(ages)
    ]
    assert probe(codes, table, "x").p > 0.05


def test_relatives_stand_on_one_side():
    """Codes that only tell the family do not predict what families have by chance."""
    rng = np.random.default_rng(0)
    who = rng.standard_normal((30, 60)).repeat(4, axis=0)
    codes, ages = who + 0.01 * rng.standard_normal(who.shape), rng.uniform(20, 80, 30).repeat(4)
    table = [
        {"participant_id": f"p{n}", "family": str(n // 4), "x": str(age)}
        for n, age in enumerate(ages)
    ]
    assert abs(probe(codes, table, "x").value) < 0.5
    alone = [{**row, "family": ""} for row in table]
    assert probe(codes, alone, "x").value > 0.9


def test_brains_without_a_value_are_left_out():
    codes = cloud(60, 10)
    table = rows(codes[:, 0])
    for row in table[:20]:
        row["x"] = ""
    found = probe(codes, table, "x")
    assert found.brains == 40
    assert found.indices.tolist() == list(range(20, 60))


@pytest.mark.parametrize(
    ("values", "column", "message"),
    [
        (range(40), "y", "no column 'y' in participants.tsv, which has participant_id, x"),
        ([1] * 40, "x", "column 'x' is the same for all brains"),
        (["a"] * 38 + ["b"] * 2, "x", "got a \\(38\\), b \\(2\\)"),
        (range(7), "x", "expected at least 10 participants .*, got 7"),
        ([""] * 40, "x", "expected at least 10 participants .*, got 0"),
    ],
)
def test_columns_that_cannot_be_probed_are_one_line(values, column, message):
    values = list(values)
    with pytest.raises(InputError, match=message):
        probe(cloud(len(values), 10), rows(values), column)


@pytest.mark.parametrize("path", ["straight", "spherical"])
def test_a_path_goes_from_one_brain_to_the_other(path):
    first, second = cloud(2, 50)
    codes = interpolate(first, second, 4, path)
    assert codes.shape == (5, 50)
    assert np.allclose(codes[[0, -1]], [first, second])
    lengths = np.linalg.norm(codes, axis=1)
    if path == "straight":
        assert np.allclose(np.diff(codes, 2, axis=0), 0)
        assert lengths[2] < lengths[[0, 4]].min()  # the middle falls towards the centre
    else:
        assert np.allclose(np.diff(lengths, 2), 0)
        directions = codes / lengths[:, None]
        steps = np.sum(directions[1:] * directions[:-1], axis=1)
        assert np.allclose(steps, steps[0])
    assert np.allclose(interpolate(first, 2 * first, 2, path)[1], 1.5 * first)
    assert np.allclose(interpolate(0 * first, second, 2, path)[1], second / 2)


def test_a_ball_becomes_a_closed_surface_in_mm_that_faces_outwards(tmp_path):
    grid = np.indices((20, 22, 24)).astype(float)
    ball = 8 - np.sqrt(((grid - np.array([9, 10, 11]).reshape(3, 1, 1, 1)) ** 2).sum(0))
    for flip in (1, -1):
        affine = np.diag([2.0 * flip, 2.0, 2.0, 1.0])
        affine[:3, 3] = (-5, 3, 1)
        vertices, faces = surface(ball, affine, 0.0)
        centre = affine[:3, :3] @ (9, 10, 11) + affine[:3, 3]
        assert np.allclose(np.linalg.norm(vertices - centre, axis=1), 16, atol=0.3)
        a, b, c = (vertices[faces[:, n]].astype(float) for n in range(3))
        normals = np.cross(b - a, c - a)
        assert (np.einsum("ij,ij->i", normals, a - centre) > 0).mean() > 0.99
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # closed
    for name in ("ball.ply", "ball.gii"):
        write_surface(tmp_path / name, vertices, faces)
    again = nibabel.load(tmp_path / "ball.gii")
    assert np.array_equal(again.darrays[0].data, vertices)
    assert np.array_equal(again.darrays[1].data, faces)
    header, _, body = (tmp_path / "ball.ply").read_bytes().partition(b"end_header\n")
    assert f"element face {len(faces)}".encode() in header
    assert len(body) == 12 * len(vertices) + 13 * len(faces)
    assert np.array_equal(np.frombuffer(body[: 12 * len(vertices)], "<f4").reshape(-1, 3), vertices)
    with pytest.raises(InputError, match=r"end in .ply or .gii"):
        write_surface(tmp_path / "ball.stl", vertices, faces)
    with pytest.raises(InputError, match="never at 9"):
        surface(ball, affine, 9.0)


@pytest.fixture(scope="module")
def space(small_run, small_cohort):
    return LatentSpace.open(small_run, small_cohort.folder, [], "cpu")


def test_the_mean_brain_is_the_average_of_what_codes_decode_to(space):
    found = mean_brain(space)
    with torch.no_grad():
        model = space.trained.model
        logits = model.decode(torch.from_numpy(space.codes.astype(np.float32)))
        expected = torch.softmax(logits, dim=1).mean(dim=0).numpy()
        code = torch.from_numpy(space.codes.mean(axis=0, keepdims=True).astype(np.float32))
        of_mean = model.decode(code).argmax(dim=1)[0].numpy()
    assert np.allclose(found.average, expected, atol=1e-5)
    assert np.allclose(found.average.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(found.of_mean_code, of_mean)


def test_the_nearest_brain_is_the_nearest_and_never_itself(space):
    found = nearest(space, 3, 5)
    distances = np.linalg.norm(space.codes - space.codes[3], axis=1)
    order = [n for n in np.argsort(distances) if n != 3][:5]
    assert [row["index"] for row in found] == order
    assert [row["distance"] for row in found] == pytest.approx(list(distances[order]))
    assert found[0]["percentile"] == 0


def test_dimensions_are_ranked_as_one_by_one(space):
    """The batched pass against the definition."""
    dimensions = np.array([5, 0, 17, 40])
    found = measure_effects(space, dimensions, brains=3)
    model = space.trained.model
    expected = np.zeros(4)
    for place in (0, 12, 23):  # evenly spread
        code = torch.from_numpy(space.codes[place].astype(np.float32))
        volume = torch.from_numpy(np.array(space.cohort.volumes[space.indices[place]]))[None]

        def loss(z, volume=volume):
            with torch.no_grad():
                return class_cross_entropy(model.decode(z[None]), volume).item()

        for n, dimension in enumerate(dimensions):
            for sign in (1, -1):
                moved = code.clone()
                moved[dimension] += sign * 0.5
                expected[n] += abs(loss(moved) - loss(code)) / 6
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_predicted_effects_agree_with_measured_ones(space):
    """And those with the largest predicted effects are measured, and come first."""
    d = space.codes.shape[1]
    every = rank_dimensions(space, measured=d, brains=4)
    assert not np.isnan(every.effect).any()
    assert every.agreement > 0.9
    assert every.variance == pytest.approx(space.codes.var(axis=0))
    some = rank_dimensions(space, measured=10, brains=4)
    assert some.predicted_effect == pytest.approx(every.predicted_effect)
    assert np.isnan(some.effect).sum() == d - 10
    first, others = some.order[:10], some.order[10:]
    assert some.effect[first] == pytest.approx(every.effect[first])
    assert (np.diff(some.effect[first]) <= 0).all()
    assert (np.diff(some.predicted_effect[others]) <= 0).all()
    assert some.predicted_effect[first].min() >= some.predicted_effect[others].max()


def test_predicted_effects_are_gradient_and_curvature_of_the_loss():
    """Codes that are the logits themselves: p − y, and p (1 − p) on the diagonal."""
    sides, rng = (4, 3, 2), np.random.default_rng(0)
    codes = rng.standard_normal((40, 2 * 24)).repeat(2, axis=0)[:40]
    volumes = rng.integers(0, 2, (40, *sides)).astype(np.uint8)

    class Logits(torch.nn.Module):
        latent_dim = 48

        def encode(self, volumes, condition=None):
            raise AssertionError

        def decode(self, codes, condition=None):
            return codes.view(-1, 2, *sides)

    brains = lambda indices: (Brain(volumes[i], {}) for i in indices)  # noqa: E731
    space = LatentSpace(
        TrainedModel(Logits(), torch.device("cpu")),
        SimpleNamespace(brains=brains),
        np.arange(40),
        codes,
        np.ones(40, dtype=bool),
    )
    step = 0.5
    p = torch.softmax(torch.from_numpy(codes).view(40, 2, 24), dim=1).numpy()
    y = np.stack([volumes == 0, volumes == 1], axis=1).reshape(40, 2, 24)
    slopes = np.abs(p - y).reshape(40, -1) / 24
    curvature = (p * (1 - p)).reshape(40, -1).mean(axis=0) / 24
    found = predict_effects(space, brains=40, step=step, draws=200)
    expected = np.maximum(step * slopes, step**2 / 2 * curvature).mean(axis=0)
    assert found == pytest.approx(expected, rel=0.02)
    # Where only the curvature counts.
    far = predict_effects(space, brains=40, step=100.0, draws=200)
    assert far == pytest.approx(100.0**2 / 2 * curvature, rel=0.1)


def test_a_dimension_moves_voxels_near_its_place_most(space):
    """The code is a map: its first number lies at one corner of the volume."""
    moved = voxels_moved(space, 0, brains=2, step=3.0).numpy()
    assert moved.shape == space.cohort.shape
    assert 0 <= moved.min() < moved.max() <= 1
    half = tuple(slice(0, side // 2) for side in moved.shape)
    assert moved[half].mean() > moved.mean()


def test_a_sweep_goes_between_the_observed_extremes(space):
    codes = sweep(space, 7, 5)
    own = space.codes[:, 7]
    assert codes[:, 7] == pytest.approx(np.linspace(own.min(), own.max(), 5))
    others = np.delete(np.arange(codes.shape[1]), 7)
    assert np.allclose(codes[:, others], space.codes.mean(axis=0)[others])


def test_a_brain_is_found_by_name_or_refused(space):
    assert space.index_of("s03") == space.index_of("sub-s03") == 3
    with pytest.raises(InputError, match="'s99': expected one of the 24 brains here, got no such"):
        space.index_of("s99")


def latent(analysis, run, cohort, out, *more):
    words = ["latent", analysis, run, cohort, "-o", out, *more, "--device", "cpu"]
    return main(list(map(str, words)))


def test_the_command_writes_tables_and_the_report_shows_them(
    small_run, small_cohort, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(probes, "N_PERMUTATIONS", 19)
    out = tmp_path / "latent"
    arguments = [small_run, small_cohort.folder, out]
    assert latent("clusters", *arguments, "--max-clusters", "3") == 0
    sentence = capsys.readouterr().out.strip()
    assert "cluster" in sentence
    assert [row["k"] for row in read_tsv(out / "clusters.tsv")] == ["1", "2", "3"]
    brains = read_tsv(out / "clusters_brains.tsv")
    assert [row["participant_id"] for row in brains] == [
        row["participant_id"] for row in small_cohort.rows
    ]
    assert latent("probe", *arguments, "--columns", "participant_id", "--quiet") == 2
    assert "at least two categories" in capsys.readouterr().err
    rows = [{**row, "group": "ab"[n % 2]} for n, row in enumerate(small_cohort.rows)]
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for path in small_cohort.folder.iterdir():
        (cohort / path.name).symlink_to(path)
    (cohort / "participants.tsv").unlink()
    write_tsv(cohort / "participants.tsv", rows, list(rows[0]))
    other = tmp_path / "other"
    assert latent("probe", small_run, cohort, other, "--columns", "group", "--quiet") == 0
    (row,) = read_tsv(other / "probes.tsv")
    assert (row["measure"], row["brains"]) == ("auc", "24")
    assert len(read_tsv(other / "probes_brains.tsv")) == 24
    page = tmp_path / "report.html"
    assert main(["report", str(out), str(other), "-o", str(page), "--quiet"]) == 0
    text = page.read_text()
    assert sentence.split("(")[0] in text
    assert "k = 3, mean" in text
    assert "<td>group</td>" in text


def test_nothing_is_overwritten_unasked(small_run, small_cohort, tmp_path, capsys):
    (tmp_path / "clusters.tsv").write_text("k")
    assert latent("clusters", small_run, small_cohort.folder, tmp_path) == 2
    assert "clusters.tsv" in capsys.readouterr().err


def test_a_folder_holds_analyses_of_one_model_and_the_same_brains(
    small_run, small_cohort, tmp_path, capsys
):
    where = [small_run, small_cohort.folder, tmp_path / "out"]
    assert latent("mean", *where, "--split", "test", "--quiet") == 0
    assert latent("clusters", *where, "--max-clusters", "2") == 2
    assert (
        "analyses of other brains or of another model (splits ['test'])" in capsys.readouterr().err
    )
    assert not (tmp_path / "out/clusters.tsv").exists()


def test_mean_neighbours_and_paths_are_written_and_shown(small_run, small_cohort, tmp_path, capsys):
    out = tmp_path / "latent"
    where = [small_run, small_cohort.folder, out]
    assert latent("mean", *where, "--quiet") == 0
    likely = [nibabel.load(path).get_fdata() for path in sorted(out.glob("*_probseg.nii.gz"))]
    assert np.allclose(sum(likely), 1, atol=1e-4)
    assert nibabel.load(out / "mean_code_dseg.nii.gz").shape == small_cohort.shape
    assert (out / "mean_label-inside.ply").is_file()
    assert (out / "mean_label-inside.surf.gii").is_file()
    assert latent("neighbours", *where, "--brain", "s03", "--num", "3") == 0
    first = capsys.readouterr().out.splitlines()[0].split()[0]
    assert next(iter(read_tsv(out / "neighbours.tsv")))["brain"] == first != "sub-s03"
    assert latent("interpolate", *where, "--brain", "s03", "--to", "s04", "--path-steps", "2") == 0
    steps = sorted(out.glob("interpolation-*_dseg.nii.gz"))
    assert len(steps) == 3
    run = RunFolder.open(small_run).load()
    volume = torch.from_numpy(np.array(small_cohort.volumes[[3]]))
    with torch.no_grad():
        ours = run.model.decode(run.model.encode(volume)).argmax(dim=1)[0].numpy()
    assert np.array_equal(np.asarray(nibabel.load(steps[0]).dataobj), ours)
    assert latent("interpolate", *where, "--brain", "s03", "--overwrite") == 2
    assert "latent interpolate needs --to" in capsys.readouterr().err
    assert latent("dimensions", *where, "--dimensions", "3", "--n-brains", "2", "--num", "1") == 0
    ranked = read_tsv(out / "dimensions.tsv")
    assert [row["rank"] for row in ranked[:3]] == ["1", "2", "3"]
    assert [bool(row["effect"]) for row in ranked[:5]] == [True, True, True, False, False]
    assert f"dimension {ranked[0]['dimension']}" in capsys.readouterr().out
    assert len(list(out.glob("dimension-*_desc-moved.nii.gz"))) == 1
    page = tmp_path / "report.html"
    assert main(["report", str(out), "-o", str(page), "--quiet"]) == 0
    text = page.read_text()
    assert f"<td>{ranked[2]['dimension']}</td>" in text
    assert "From sub-s03 to sub-s04" in text
    assert f"{first} (" in text
    assert text.count('<img src="data:image/png') == 4
    # Release 0.1 called predicted effects foretold.
    table, rows = out / "dimensions.tsv", latent_section(out)["dimensions"]
    assert rows[0]["predicted_effect"]
    table.write_text(table.read_text().replace("predicted_effect", "foretold"))
    assert latent_section(out)["dimensions"] == rows


def test_neighbours_lie_in_the_head_where_they_were(space, small_cohort, tmp_path):
    """Right hemispheres of a cohort that mirrors them, on the right."""
    mirrored = tmp_path / "mirrored"
    shutil.copytree(small_cohort.folder, mirrored)
    description = read_json(mirrored / "dataset_description.json")
    description["Cohort"]["preparation"]["mirror_right"] = True
    write_json(mirrored / "dataset_description.json", description)
    rows = [{**row, "hemi": "LR"[n % 2]} for n, row in enumerate(small_cohort.rows)]
    write_tsv(mirrored / "participants.tsv", rows, list(rows[0]))
    cohort = Cohort.open(mirrored)
    found = [{"key": "other", "index": 1, "distance": 1.0, "percentile": 0.0}]
    write_neighbours(replace(space, cohort=cohort), 0, found, tmp_path / "out")
    for n in (0, 1):
        written = nibabel.load(tmp_path / "out" / NEIGHBOUR_VOLUME.of(n=n))
        row = cohort.rows[space.indices[n]]
        assert np.allclose(written.affine, cohort.affine_of(row))
        assert (written.affine[0, 0] < 0) == (row["hemi"] == "R")


def test_quantities_of_folds_can_be_probed():
    # A cohort writes sub-, the table of foldnorm folds does not.
    brains = [{"participant_id": f"sub-p{n}", "hemi": "L"} for n in range(3)]
    fold = {"hemi": "L", "voxels": "9", "bottom_mm": ""}
    folds = [
        {**fold, "participant_id": "p0", "name": "S.C.", "surface_mm2": "10", "depth_mm": "5"},
        {**fold, "participant_id": "p0", "name": "S.C.", "surface_mm2": "20.5", "depth_mm": "9"},
        {**fold, "participant_id": "p0", "name": "S.T.s.", "surface_mm2": "7", "depth_mm": "3"},
        {**fold, "participant_id": "p1", "name": "S.T.s.", "surface_mm2": "8", "depth_mm": "4"},
    ]
    columns = ["surface_mm2", "surface_mm2@S.C.", "depth_mm", "age"]
    found = with_morphometry(brains, folds, columns)
    assert [row["surface_mm2"] for row in found] == ["37.5", "8.0", ""]
    assert [row["surface_mm2@S.C."] for row in found] == ["30.5", "", ""]
    assert [row["depth_mm"] for row in found] == ["9.0", "4.0", ""]
    assert "age" not in found[0]
    for column in ("depth_mm@F.C.M.", "bottom_mm"):
        with pytest.raises(InputError, match=r"no brain has a value of .* sulci such as"):
            with_morphometry(brains, folds, [column])
    with pytest.raises(InputError, match="the table of folds has no column 'size'"):
        with_morphometry(brains, folds, ["size"])
