"""Voids where an atlas has each sulcus, and what they say of one that is missing."""

import numpy as np
import pytest
from test_atlas import hemispheres  # noqa: F401  a fixture
from test_sulcus_scores import healthy_sizes, lost_of, measures_of

from foldnorm.pipeline.scoring.sulcus_norms import VOID_FLOOR, SulcusNorms
from foldnorm.pipeline.scoring.sulcus_scores import SulcusScores
from foldnorm.pipeline.scoring.sulcus_voids import LEAST_Z, void_by_sulcus
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.naming.atlas import SulcusAtlas


def atlas_side():
    """Two sulci of ten brains, in voxels of 2 mm whose first one lies at 100 mm."""
    counts = np.zeros((2, 12, 12, 12), np.uint8)
    counts[0, 2:5, 2:10, 2:10], counts[1, 8:11, 2:10, 2:10] = 10, 10
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 100
    return SulcusAtlas(("far", "near"), {"L": counts}, affine).side("L")


def test_a_void_counts_for_the_sulcus_that_runs_there_by_how_far_it_is_one():
    side, z = atlas_side(), np.full((10, 12, 12), 1.4, np.float32)
    z[1:3, 4:8, 5:8] = 4
    to_atlas = np.diag([2.0, 2, 2, 1])
    to_atlas[:3, 3] = 102  # voxels of z are those of the atlas, one off
    found = void_by_sulcus(z, side, to_atlas, ("none", "near", "far"))
    margin = np.rint(side.to_voxel @ [102, 102, 102, 1])[:3].astype(int)
    expected = np.zeros(3)
    for place in np.argwhere(z > LEAST_Z):
        share = np.exp(side.log_density[tuple(place + margin)])
        expected += [0, *(float(z[tuple(place)] - LEAST_Z) * share * 8)[::-1]]
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[2] > 20 * found[1] > 0
    assert not void_by_sulcus(np.full_like(z, LEAST_Z), side, to_atlas, ("near", "far")).any()


def test_a_void_is_as_large_in_smaller_voxels():
    side, z = atlas_side(), np.zeros((10, 10, 10), np.float32)
    z[1:3, 4:8, 5:8] = 4
    fine = z.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    coarse_to_atlas, fine_to_atlas = np.diag([2.0, 2, 2, 1]), np.diag([1.0, 1, 1, 1])
    coarse_to_atlas[:3, 3], fine_to_atlas[:3, 3] = 102, 101.5
    coarse, finer = (
        void_by_sulcus(values, side, matrix, ("far", "near"))
        for values, matrix in ((z, coarse_to_atlas), (fine, fine_to_atlas))
    )
    assert finer == pytest.approx(coarse, rel=0.15)  # eight times the voxels


def test_missing_is_what_names_and_voids_say_together():
    rng = np.random.default_rng(0)
    sizes, voids = healthy_sizes(rng, 60), rng.gamma(1, 1, (60, 4))
    norms = SulcusNorms(4).fit(measures_of(sizes), lost=lost_of(sizes), voids=voids)
    typical = sizes.mean(axis=0)
    gone = typical * [1, 1, 0.1, 1]
    brains = measures_of([typical, gone, gone, typical])
    empty = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 400, 1], [1, 1, 1, 400.0]])
    z = norms.departures(brains, voids=empty)
    roots = np.sqrt(voids)
    expected = (20 - roots[:, 2].mean()) / np.hypot(roots[:, 2].std(ddof=1), VOID_FLOOR)
    assert z["void"][2, 2] == pytest.approx(expected, rel=0.05)
    assert z["missing"] == pytest.approx((z["unnamed"] + z["void"]) / np.sqrt(2))
    assert list(z["missing"][1:].argmax(axis=1)) == [2, 2, 3]
    filled, erased = z["missing"][1:3, 2]  # neighbours fill its place, or nothing does
    assert erased > filled > 2 > z["missing"][0].max()
    without = norms.departures(brains)
    assert np.array_equal(without["missing"], z["unnamed"])
    assert not {"unnamed", "void"} & {*without}


def test_a_void_in_a_region_where_healthy_brains_have_none_at_all_is_bounded():
    rng = np.random.default_rng(1)
    sizes = healthy_sizes(rng, 20)
    norms = SulcusNorms(4).fit(measures_of(sizes), lost=lost_of(sizes), voids=np.zeros((20, 4)))
    z = norms.departures(measures_of(sizes[:1]), voids=np.full((1, 4), 1.0))["void"]
    assert z == pytest.approx(1 / VOID_FLOOR)


@pytest.fixture(scope="module")
def scores(hemispheres):  # noqa: F811
    void = VoidScores(hemispheres.scheme, hemispheres.voxel_size).fit(hemispheres.select())
    atlas = SulcusAtlas.from_cohort(hemispheres)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foldnorm.pipeline.scoring.sulcus_norms.MIN_HEALTHY", 4)
        return SulcusScores(hemispheres, atlas, void=void).fit(hemispheres.select())


def test_voids_of_a_healthy_brain_are_against_all_but_its_own_family(hemispheres, scores):  # noqa: F811
    brain = hemispheres[0]
    (left_out,) = scores.void.maps([brain])
    named = scores.labeller.name(brain)
    side = scores.labeller.side(brain.row)
    expected = void_by_sulcus(left_out[0], side, named.to_atlas, scores.sulci)
    known = scores.measured(brain).voids
    assert known == pytest.approx(expected)
    stranger = brain._replace(row={"participant_id": "sub-x", "hemi": "L", "family": ""})
    assert scores.measured(stranger).voids.sum() < 0.8 * known.sum()  # it is among the healthy


def test_maps_that_are_known_are_not_made_again(hemispheres, scores):  # noqa: F811
    brains = [
        hemispheres[n]._replace(row={"participant_id": "sub-x", "hemi": hemi, "family": ""})
        for n, hemi in enumerate("LR")
    ]
    maps = list(scores.void.maps(brains))
    alone, given = scores.score(brains), scores.score(brains, voids=maps)
    assert {name: list(own) for name, own in alone.items()} == {
        name: list(own) for name, own in given.items()
    }
    none = scores.score(brains, voids=[np.zeros_like(z) for z in maps])
    assert (none["sulcus_void"] < alone["sulcus_void"]).all()
    assert list(none["sulcus_unnamed"]) == list(alone["sulcus_unnamed"])
