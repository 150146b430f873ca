"""The probability of codes in any order, what is drawn from it, and places that are unlikely."""

from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_models import SHAPE, TRANSFORMER, make, noise, train, weights

from foldnorm.models import VQVAETransformer
from foldnorm.models.causal_transformer import CausalTransformer
from foldnorm.models.classes import one_hot, to_classes
from foldnorm.models.code_transformer import CodeTransformer, chosen, neighbour_table
from foldnorm.models.grids import GridWindows, tiles
from foldnorm.pipeline.runs.forward_pass import ForwardPass
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.brain_scores import BrainScores, unfitted_families
from foldnorm.pipeline.scoring.families import SHORTFALL

CPU = torch.device("cpu")
LONG = (8, 8, 24)  # voxels; 2 × 2 × 6 places
ORDERS = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]])


def tiny(places=(1, 3), n_codebooks=2, n_codes=2):
    """A transformer that was not trained, but whose parts all say something; and entries."""
    torch.manual_seed(0)
    model = CodeTransformer(places, n_codebooks, n_codes, 2, 8, 2, 2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, torch.randn(n_codebooks, n_codes, 2)


def every(places=3, n_codebooks=2, n_codes=2):
    """All that a grid can hold, (n, places, codebooks)."""
    found = list(product(range(n_codes), repeat=places * n_codebooks))
    return torch.tensor(found).view(-1, places, n_codebooks)


def test_steps_one_by_one_are_those_of_the_whole_sequence():
    torch.manual_seed(0)
    model, x = CausalTransformer(8, 2, 2), torch.randn(3, 6, 8)
    caches = model.caches(3, 6)
    with torch.no_grad():
        parts = [model(x[:, :3], caches)] + [model(x[:, n : n + 1], caches) for n in range(3, 6)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(x))
        with pytest.raises(ValueError, match="one at a time, got 2"):
            model(x[:, :2], caches)


def test_the_neighbours_of_a_place_are_those_that_touch_it():
    table = neighbour_table((2, 3))
    assert table.shape == (6, 8)
    assert sorted(set(table[0].tolist()) - {6}) == [1, 3, 4]
    assert sorted(table[1].tolist()) == [0, 2, 3, 4, 5, 6, 6, 6]
    assert neighbour_table((3, 3, 3))[13].tolist() == [n for n in range(27) if n != 13]


@pytest.mark.parametrize("order", ORDERS)
def test_probabilities_of_all_that_a_grid_can_hold_are_one_together(order):
    model, entries = tiny()
    tokens = every()
    with torch.no_grad():
        log_p = model.log_probability(tokens, entries, order.expand(len(tokens), -1))
    assert log_p.shape == (64, 3)
    assert log_p.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_a_place_depends_on_those_before_it_alone(order):
    model, entries = tiny()
    tokens = every()[:1].clone()
    changed = tokens.clone()
    changed[0, order[1], 1] = 1  # the last code of the second that is read
    with torch.no_grad():
        before, after = (model.log_probability(t, entries, order[None]) for t in (tokens, changed))
    first, last = order[0], order[2]
    assert before[0, first] == after[0, first]
    assert before[0, last] != after[0, last]


@pytest.mark.parametrize("order", ORDERS)
def test_from_a_step_on_places_are_told_those_before_the_step_alone(order):
    model, entries = tiny()
    tokens, told = every(), torch.ones(64, dtype=torch.long)
    with torch.no_grad():
        log_p = model.log_probability(tokens, entries, order.expand(64, -1), None, told)
        usual = model.log_probability(tokens, entries, order.expand(64, -1))
        swapped = order[[0, 2, 1]].expand(64, -1)
        other = model.log_probability(tokens, entries, swapped, None, told)
        nothing = model.log_probability(tokens, entries, order.expand(64, -1), None, 0 * told)
    first, second, third = order
    torch.testing.assert_close(log_p[:, [first, second]], usual[:, [first, second]])
    torch.testing.assert_close(log_p, other)  # in whatever order they are asked about
    assert not torch.allclose(log_p[:, third], usual[:, third])
    assert len({round(value, 4) for value in nothing[:, second].tolist()}) == 4  # told nothing


@pytest.mark.parametrize("order", ORDERS)
def test_what_follows_from_a_condition_differs_from_place_to_place(order):
    torch.manual_seed(0)
    model = CodeTransformer((1, 3), 2, 2, 2, 8, 2, 2, condition_size=2).eval()
    tokens, entries, told = every()[:1], torch.randn(2, 2, 2), torch.eye(2)
    with torch.no_grad():
        model.condition.maps[1, order[1]] = torch.randn(8)  # of one place, and of one category
        both = [model.log_probability(tokens, entries, order[None], own[None]) for own in told]
    first, second, third = order
    assert both[0][0, first] == both[1][0, first]
    assert both[0][0, second] != both[1][0, second]
    assert both[0][0, third] != both[1][0, third]  # which is told of the second


def test_what_is_expected_is_the_mean_of_what_places_can_hold():
    model, entries = tiny(n_codebooks=1, n_codes=3)
    meanings, order = torch.randn(1, 3, 5), ORDERS[1]
    tokens = every(n_codebooks=1, n_codes=3)
    chance = torch.rand(3, 1, generator=torch.Generator().manual_seed(0))
    found = model.expected(tokens, entries, meanings, order, 1, chance)
    assert found.shape == (27, 2, 1, 5)
    told = torch.ones(27, dtype=torch.long)
    with torch.no_grad():
        log_p = model.log_probability(tokens, entries, order.expand(27, -1), None, told)
    for step, place in enumerate(order[1:]):
        for first in range(3):  # what is known of it
            same = tokens[:, order[0], 0] == first
            mean = torch.zeros(5)
            for code in range(3):
                (n, *_) = torch.nonzero(same & (tokens[:, place, 0] == code)).flatten()
                mean += log_p[n, place].exp() * meanings[0, code]
            torch.testing.assert_close(found[same][:, step, 0], mean.expand(int(same.sum()), -1))
    assert torch.equal(found, model.expected(tokens, entries, meanings, order, 1, chance))


def test_what_is_expected_of_a_second_code_is_given_the_first_that_is_drawn():
    model, entries = tiny()
    meanings = torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]])
    order, tokens, told = ORDERS[0], every(), torch.zeros(64, dtype=torch.long)
    with torch.no_grad():
        p = model.log_probability(tokens, entries, order.expand(64, -1), None, told).exp()[:, 2]
    joint = {tuple(own): value.item() for own, value in zip(tokens[:, 2].tolist(), p, strict=True)}
    for chance, first in ((0.0, None), (0.999999, None)):
        found = model.expected(tokens[:1], entries, meanings, order, 0, torch.full((3, 2), chance))
        share = joint[0, 1] + joint[1, 1], joint[1, 0] + joint[1, 1]
        assert found[0, 2, 0].item() == pytest.approx(share[1], abs=1e-5)
        likeliest = int(share[1] > 0.5)
        first = likeliest if chance == 0.0 else 1 - likeliest  # the draw sorts by probability
        given = joint[first, 1] / (joint[first, 0] + joint[first, 1])
        assert found[0, 2, 1].item() == pytest.approx(given, abs=1e-5)


def test_tiles_hold_each_place_once_and_those_of_a_group_do_not_touch():
    for grid, side, shift in (((5, 7), 3, 1), ((4, 6, 5), 2, 0), ((3, 3, 3), 5, 2)):
        groups = tiles(grid, side, shift)
        assert torch.stack(groups).sum(0).tolist() == [1] * int(np.prod(grid))
        for own in groups:
            boxes, _ = ndimage.label(own.view(grid).numpy(), np.ones([3] * len(grid)))
            for box in ndimage.find_objects(boxes):
                assert all(part.stop - part.start <= side for part in box)


def places_of(sides):
    """Coordinates of the places of a grid, row by row."""
    return np.stack(np.unravel_index(np.arange(np.prod(sides)), sides), axis=1)


def test_windows_ask_about_each_place_once_told_all_that_is_known_beside_it():
    grid, asked = (9, 4, 11), torch.ones(9 * 4 * 11, dtype=torch.bool)
    where, known = places_of(grid), np.zeros(9 * 4 * 11, bool)
    for order, first in GridWindows(grid, (4, 6, 5)).orders(asked):
        order = order.numpy()
        assert known[order[:first]].all()
        assert not known[order[first:]].any()
        assert (np.ptp(where[order], axis=0) < (4, 4, 5)).all()
        beside = np.abs(where[order[first:], None] - where[None]).max(axis=2) == 1
        assert not (beside.any(axis=0) & known)[np.setdiff1d(np.arange(len(known)), order)].any()
        known[order[first:]] = True
    assert known.all()


@pytest.mark.parametrize("sides", [(1, 1, 1), (2, 2, 2), (3, 1, 2), (4, 3, 5)])
def test_windows_cover_the_grid_whatever_their_sides(sides):
    asked = torch.from_numpy(np.random.default_rng(0).random(4 * 5 * 7) < 0.3)
    parts = [order[first:] for order, first in GridWindows((4, 5, 7), sides).orders(asked)]
    assert sorted(torch.cat(parts).tolist()) == asked.nonzero().flatten().tolist()


def test_windows_lie_anywhere_in_training():
    windows = GridWindows((3, 5, 4), (2, 5, 3))
    shares = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    found = set((windows.first + windows.drawn(shares))[:, 0].tolist())
    assert found == {0, 1, 20, 21}  # two places along two axes, none along the other


def test_corners_of_the_grid_are_learned_too():
    windows = GridWindows((12, 12, 12), (6, 6, 6))
    shares = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    shifts = windows.drawn(shares)[:, 0]
    assert (shifts == 0).sum() > 4000 / 7**3 * 5  # of 7³ places where windows may begin


def test_windows_are_learned_in_the_sequences_that_draw():
    grid, sides = (9, 4, 11), (4, 6, 5)
    windows = GridWindows(grid, sides)
    every = torch.ones(9 * 4 * 11, dtype=torch.bool)
    drawn = list(windows.orders(every))
    assert len(windows.as_drawn) == len(drawn) > 1
    for own, (order, _) in zip(windows.as_drawn, drawn, strict=True):
        assert (own[: len(order)] == order).all()
        assert len(own.unique()) == len(own) == 4 * 4 * 5
    words = {**TRANSFORMER, "window": sides, "raster_share": 1.0, "region_share": 0.0}
    model = VQVAETransformer([4 * side for side in grid], **words)
    learned, told = model._orders_to_learn(noise(count=200))
    assert set(map(tuple, learned.tolist())) == set(map(tuple, windows.as_drawn.tolist()))
    assert (told == 4 * 4 * 5).all()


def test_a_sequence_of_a_part_is_told_nothing_of_the_rest():
    model, entries = tiny((1, 6))
    tokens = torch.randint(2, (5, 6, 2), generator=torch.Generator().manual_seed(0))
    order = torch.tensor([[3, 1, 2]])
    with torch.no_grad():
        found = model.log_probability(tokens, entries, order.expand(5, -1))
        other = tokens.clone()
        other[:, [0, 4, 5]] = 1 - other[:, [0, 4, 5]]
        assert torch.equal(found, model.log_probability(other, entries, order.expand(5, -1)))
    assert (found[:, [0, 4, 5]] == 0).all()
    assert (found[:, [1, 2, 3]] < 0).all()
    uniform = torch.rand(5, 6, 2, generator=torch.Generator().manual_seed(1))
    drawn = model.draw(tokens, entries, order.expand(5, -1), 1, uniform)
    assert torch.equal(drawn[:, [0, 3, 4, 5]], tokens[:, [0, 3, 4, 5]])


@pytest.mark.parametrize("order", ORDERS[:2])
def test_volumes_are_drawn_as_often_as_they_are_likely(order):
    model, entries = tiny()
    count, tokens = 6000, every()
    with torch.no_grad():
        log_p = model.log_probability(tokens, entries, order.expand(len(tokens), -1))
    uniform = torch.rand(count, 3, 2, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(count, 3, 2, dtype=torch.long)
    drawn = model.draw(nothing, entries, order.expand(count, -1), 0, uniform)
    number = (drawn.flatten(1) * 2 ** torch.arange(5, -1, -1)).sum(1)
    share = torch.bincount(number, minlength=64) / count
    assert (share - log_p.sum(1).exp()).abs().max() < 0.02
    assert share.max() > 0.05  # it is not one like the other


def test_what_stays_is_given_to_what_is_drawn_anew():
    model, entries = tiny()
    order = torch.tensor([[0, 2, 1]])
    count = 4000
    kept = torch.tensor([[1, 0], [0, 0], [1, 1]]).expand(count, -1, -1)
    uniform = torch.rand(count, 3, 2, generator=torch.Generator().manual_seed(1))
    drawn = model.draw(kept, entries, order.expand(count, -1), 2, uniform)
    assert torch.equal(drawn[:, [0, 2]], kept[:, [0, 2]])
    asked = torch.stack([kept[0], kept[0], kept[0], kept[0]])
    asked[:, 1] = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    with torch.no_grad():
        log_p = model.log_probability(asked, entries, order.expand(4, -1))
    share = torch.bincount(2 * drawn[:, 1, 0] + drawn[:, 1, 1], minlength=4) / count
    torch.testing.assert_close(share, log_p[:, 1].exp(), atol=0.03, rtol=0)


def test_only_the_likeliest_are_drawn():
    logits = torch.tensor([[0.1, 0.6, 0.3]]).log().expand(101, -1)
    uniform = torch.linspace(0, 0.9999, 101)
    all_of_them = chosen(logits, uniform, 1.0)
    assert torch.bincount(all_of_them, minlength=3).tolist() == [10, 61, 30]
    assert set(chosen(logits, uniform, 0.8).tolist()) == {1, 2}
    assert set(chosen(logits, uniform, 0.5).tolist()) == {1}


def test_a_volume_is_the_same_however_many_are_drawn():
    model = make("vqvae_transformer").eval()
    two, one = (model.sample(n, torch.Generator().manual_seed(3)) for n in (2, 1))
    assert two.shape == (2, *SHAPE)
    other = model.sample(1, torch.Generator().manual_seed(4))
    assert not torch.equal(one, other)
    torch.testing.assert_close(model.sample(2, torch.Generator().manual_seed(3)), two)
    five = model.sample(5, torch.Generator().manual_seed(3))
    assert torch.equal(five[:1], one)


def patterned(count, seed):
    """Volumes in which every block of 4³ holds the same sheet, across one axis or another."""
    generator = torch.Generator().manual_seed(seed)
    volumes = torch.ones(count, *LONG, dtype=torch.uint8)
    for volume in volumes:
        place = int(torch.randint(4, (1,), generator=generator))
        volume[place::4] = 2
    return volumes


@pytest.fixture(scope="module", params=[None, (2, 2, 4)], ids=["whole", "windows"])
def learned(request):
    """A model that knows volumes of one sheet after the other."""
    torch.manual_seed(0)
    sizes = {"channels": [16], "code_channels": 16, "n_codebooks": 8, "n_codes": 8,
             "region_sides": [1, 2], "box_sides": [1], "n_tilings": 1}  # fmt: skip
    stages = {"training_steps": 300, "autoencoder_share": 0.6, "window": request.param}
    model = VQVAETransformer(LONG, **sizes, width=16, depth=2, heads=2, **stages).train()
    optimizers = {
        "reconstruction": torch.optim.Adam(
            [*model.encoder.parameters(), *model.generator.parameters()], 1e-2
        ),
        "codes": torch.optim.Adam(model.transformer.parameters(), 1e-2),
    }
    for step in range(300):
        (phase,) = model.phase_order(step)
        terms = model.loss(phase, patterned(4, step), noise(step, count=4))
        optimizers[phase].zero_grad()
        terms["loss"].backward()
        optimizers[phase].step()
        model.after_step(phase)
    return model.eval()


def damaged():
    """A volume of the pattern, and the same with the sheet of one block gone."""
    true = patterned(1, 1000)
    without = true.clone()
    without[:, 4:, 4:, 4:8] = 1
    return true, without


def test_the_second_stage_leaves_the_first_as_it_is(learned):
    true, _ = damaged()
    assert learned.phase_order(179) == ("reconstruction",)
    assert learned.phase_order(180) == ("codes",)
    with torch.no_grad():
        back = to_classes(learned.decode(learned.encode(true)))
    assert (back != true).float().mean() < 0.02


def test_a_sheet_is_expected_where_it_goes_on_around(learned):
    true, without = damaged()
    expected = learned.expected(without)
    assert expected.shape == (1, 3, *LONG)
    torch.testing.assert_close(expected.sum(1), torch.ones(1, *LONG))
    missing = (true != without)[0]
    sheet = expected[0, 2]
    assert sheet[missing].mean() > 0.8
    assert sheet[true[0] == 1].mean() < 0.1
    with torch.no_grad():
        both = learned.expected(torch.cat([true, without]))
    torch.testing.assert_close(both[1:], expected)  # whatever is beside it


def test_what_is_asked_about_is_told_in_no_part(learned, monkeypatch):
    """A box of all places: what is expected of it cannot depend on what is there."""
    monkeypatch.setattr(learned, "box_sides", (6,))
    one, other = patterned(1, 1000), patterned(1, 1000).roll(2, dims=1)
    assert not torch.equal(learned.tokens(one), learned.tokens(other))
    torch.testing.assert_close(learned.expected(one), learned.expected(other))


def test_what_misses_a_sheet_is_drawn_anew_and_the_rest_stays(learned):
    true, without = damaged()
    learned.redraw_above = 0.002
    restored = to_classes(learned.restore(without))
    filled = (restored == true)[:, 4:, 4:, 4:8]
    assert filled.float().mean() > 0.9
    assert torch.equal(learned.restore(without), learned.restore(without))
    with torch.autocast("cpu", torch.bfloat16):  # as brains are scored
        in_half = to_classes(learned.restore(without))
    assert (in_half == restored).float().mean() > 0.95
    learned.redraw_above = 1e6
    kept = learned.restore(without)
    assert torch.equal(to_classes(kept), without)
    assert torch.equal(kept, 10 * one_hot(without, 3))


def test_likely_volumes_of_the_model_are_drawn(learned):
    learned.sheet_margin = 0.0
    drawn = learned.sample(4, torch.Generator().manual_seed(0))
    unlike = [min((own != p).float().mean() for p in patterned(40, 7)) for own in drawn]
    assert np.mean(unlike) < 0.05


def test_a_hole_of_which_the_codes_are_not_sure_is_closed_in_what_is_drawn(learned):
    volumes = patterned(1, 3)
    logits = 10 * one_hot(volumes, 3)
    i, j, k = (volumes[0] == 2).nonzero()[0].tolist()
    logits[0, :, i, j, k] = torch.tensor([0.0, 7.0, 4.0])
    learned.decode_tokens = lambda tokens, condition=None: logits
    learned.sheet_margin = 0.0
    holed = learned.sample(1, torch.Generator().manual_seed(0))
    learned.sheet_margin = 4.0
    whole = learned.sample(1, torch.Generator().manual_seed(0))
    del learned.decode_tokens
    assert (holed != volumes).sum() == 1
    assert torch.equal(whole, volumes)


def test_it_may_start_from_the_weights_of_its_first_stage(small_cohort, tmp_path, capsys):
    assert train("vqvae", small_cohort, tmp_path / "first") == 0
    words = ["--weights", str(tmp_path / "first")]
    assert train("vqvae_transformer", small_cohort, tmp_path / "run", *words) == 0
    first, second = weights(tmp_path / "first"), weights(tmp_path / "run")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert set(second) - set(first) == {n for n in second if n.startswith("transformer.")}
    wider = [*words, "--model.init_args.n_codes", "7"]
    assert train("vqvae_transformer", small_cohort, tmp_path / "wide", *wider) == 2
    assert "(differs in n_codes)" in capsys.readouterr().err
    other = ["--weights", str(tmp_path / "run")]
    assert train("vqvae", small_cohort, tmp_path / "back", *other) == 2
    assert "class_path" in capsys.readouterr().err


def test_what_is_drawn_at_a_validation_is_mended(small_cohort, tmp_path):
    words = ["--model.init_args.sheet_margin", "2", "--training.validate_every", "1"]
    assert train("vqvae_transformer", small_cohort, tmp_path / "run", *words) == 0
    assert "samples/" in (tmp_path / "run/metrics.csv").read_text().splitlines()[0]


def test_it_scores_brains_by_what_it_expects(phantom_cohort):
    torch.manual_seed(0)
    model = VQVAETransformer(phantom_cohort.shape, **{**TRANSFORMER, "channels": [8, 8]}).eval()
    trained = TrainedModel(model, CPU)
    families = unfitted_families(trained, phantom_cohort)
    assert next(iter(families)) == SHORTFALL  # maps are written of the first
    assert "evidence" not in families
    (raw,) = families[SHORTFALL].raw_maps(phantom_cohort.brains([0]))
    assert raw.shape == (2, *phantom_cohort.shape)
    assert np.array_equal(raw[0], -raw[1])
    volume = np.array(phantom_cohort.volumes[0])
    likely = model.expected(torch.from_numpy(volume)[None])[0, 2].numpy()
    np.testing.assert_allclose(raw[0], likely - (volume == 2), atol=1e-6)
    without = BrainScores(trained).fit(phantom_cohort)
    assert SHORTFALL not in without.families_
    fitted = BrainScores(trained).fit(phantom_cohort, controls=phantom_cohort)
    found = fitted.score(phantom_cohort.select("test"))
    assert np.isfinite(found["shortfall_component"]).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": [2, 2]}, r"window: expected 3 sides of 1 place or more, got \[2, 2\]"),
        ({"raster_share": 1.5}, "raster_share: expected a share, got 1.5"),
        ({"top_p": 0.0}, "a top_p and a temperature above 0"),
        ({"raster_share": 0.7}, "both_shares: expected a share, got 1.2"),
        ({"temperature": 0.0}, "a temperature above 0, got 0.99 and 0"),
        ({"n_tilings": 2}, "got \\[1, 2\\] and 2"),
        ({"box_sides": []}, "one of box_sides or more"),
        ({"region_sides": [3, 2]}, "the smaller first, got \\[3, 2\\]"),
        ({"heads": 3}, "a width that 3 heads divide, got 1 and 8"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        VQVAETransformer(SHAPE, **{**TRANSFORMER, **wrong})


def test_what_is_expected_is_computed_as_everything_else_is(learned):
    """On a GPU in the float32 of the training, whether a restored volume was asked for or not."""
    entered = []

    @contextmanager
    def computing():
        entered.append(1)
        with torch.no_grad():
            yield

    volumes = torch.ones(1, *learned.shape, dtype=torch.uint8)
    assert ForwardPass(learned, volumes, None, "32", computing).expected.shape[1] == 3
    assert len(entered) == 1
