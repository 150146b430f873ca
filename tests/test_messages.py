"""What processes that train together tell each other: how often, and that nothing is lost."""

import shutil
import threading
import time
from collections import Counter

import torch
from conftest import TINY_TRAINING
from processes import joined, together
from torch import nn

from foldnorm.models.blocks import as_channels_last
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training import messages, setup
from foldnorm.pipeline.training import train as train_module
from foldnorm.pipeline.training.distributed import launch
from foldnorm.pipeline.training.registry import task_of
from foldnorm.pipeline.training.validation import validate
from foldnorm.preprocessing.core.errors import InputError

SENDING = (
    *("all_reduce", "barrier", "all_gather", "broadcast", "gather_object"),
    *("broadcast_object_list", "all_gather_object"),
)


def counted_training(cohort, out):
    """Train with every message counted; those of each step without a row, and of all."""
    counts, of_steps = Counter(), []

    def counting(name, send):
        def counted(*arguments, **others):
            counts[name] += 1
            return send(*arguments, **others)

        return counted

    for name in SENDING:
        setattr(torch.distributed, name, counting(name, getattr(torch.distributed, name)))
    step = train_module.train_step

    def counted_step(training):
        before = counts.copy()
        terms = step(training)
        of_steps.append(dict(counts - before))
        return terms

    train_module.train_step = counted_step
    words = ["train", "wgan_gp", str(cohort), "-o", str(out), "--device", "cpu", "--quiet"]
    more = ["--training.log_every", "4", "--training.validate_every", "4"]
    assert main([*words, *TINY_TRAINING, *more]) == 0
    return of_steps, dict(counts)


def test_a_step_has_one_message_a_phase_and_no_barrier(small_cohort, tmp_path):
    (of_steps, counts), other = together(counted_training, small_cohort.folder, tmp_path / "run")
    assert (of_steps, counts) == other
    assert of_steps == [{"all_reduce": 4}] * 4  # critic twice, generator, reconstruction
    assert "barrier" not in counts
    # A flag a step; at the end: is all finite, the row, all are here.
    assert counts["all_reduce"] == 4 * (4 + 1) + 3


def averaged(rank_of_none):
    """Average gradients of two networks, one of which has none on some process."""
    fabric = joined()
    torch.manual_seed(0)
    networks = [nn.Conv3d(8, 8, 3), nn.Linear(3, 2)]
    as_channels_last(networks[0], 3)
    for number, network in enumerate(networks):
        for p in network.parameters():
            p.grad = torch.full_like(p, number + 3.0 * fabric.global_rank)
    if fabric.global_rank == rank_of_none:
        networks[1].bias.grad = None
    strides = [p.grad.stride() for p in networks[0].parameters()]
    optimizers = [torch.optim.Adam(network.parameters()) for network in networks]
    messages.average_gradients(fabric, optimizers)
    assert [p.grad.stride() for p in networks[0].parameters()] == strides
    return [float(p.grad.unique()) for network in networks for p in network.parameters()]


def test_gradients_are_averaged_and_keep_their_memory_format():
    assert together(averaged, 1) == [[1.5, 1.5, 2.5, 0.5]] * 2


def taken(count):
    fabric = joined()
    mine = {}
    for name in ("first", "second"):
        for number in messages.dealt(fabric, count, name):
            mine[number] = fabric.global_rank
            time.sleep(0.01)
        everything = messages.gathered(fabric, mine)
    return sorted(mine), everything


def test_work_is_dealt_once_and_comes_together():
    (first, everything), (second, nothing) = together(taken, 30)
    assert sorted(everything) == list(range(30))
    assert nothing == {}
    assert set(first) | set(second) == set(range(30))
    assert len(first) > 1
    assert len(second) > 1


def validated(run, cohort, *, together=True):
    trained = RunFolder.open(run).load()
    fabric = joined() if together else launch("cpu")
    found = validate(task_of(trained.model, cohort), trained, 5, fabric=fabric, name="a")
    return found.figures, found.picture


def test_a_shared_validation_finds_what_one_process_finds(small_run, small_cohort):
    (figures, picture), nothing = together(validated, small_run, small_cohort)
    assert nothing == ({}, None)
    alone, alone_picture = validated(small_run, small_cohort, together=False)
    assert figures == alone
    assert (picture == alone_picture).all()
    assert {"validation/dice", "samples/volume_ratio"} <= set(figures)


def never(*folders):
    """Resume where each process sees a folder of its own."""
    fabric = joined()
    setup.SEEN_WITHIN = 1.0
    try:
        return setup.resumes(RunFolder(folders[fabric.global_rank]), fabric)
    except InputError as error:
        return str(error)


def late(of_first, of_other):
    """Resume where the checkpoint is seen by the other process a second later."""
    fabric = joined()
    if fabric.is_global_zero:
        return setup.resumes(RunFolder(of_first), fabric)
    copied = [folder / "checkpoints" for folder in (of_first, of_other)]
    threading.Timer(1.0, shutil.copytree, copied).start()
    return setup.resumes(RunFolder(of_other), fabric)


def test_the_first_process_says_whether_a_run_goes_on(small_run, tmp_path):
    assert together(late, small_run, tmp_path / "late") == [True, True]
    goes_on, said = together(never, small_run, tmp_path / "never")
    assert goes_on is True
    assert "goes on from step 4, and process 1 sees a checkpoint of step 0" in said
    assert together(never, tmp_path / "a", tmp_path / "b") == [False, False]
    anew, said = together(never, tmp_path / "a", small_run)
    assert anew is False
    assert "goes on from step 0, and process 1 sees a checkpoint of step 4" in said


def finish_slowly(cohort, out):
    """Train where the first process takes its time to write the last file; is it there then."""
    write = train_module.write_model_card

    def write_slowly(*arguments):
        time.sleep(1)
        write(*arguments)

    train_module.write_model_card = write_slowly
    words = ["train", "wgan_gp", str(cohort), "-o", str(out), "--device", "cpu", "--quiet"]
    assert main([*words, *TINY_TRAINING]) == 0
    return (out / "MODEL_CARD.md").is_file()


def test_no_process_leaves_before_all_is_written(small_cohort, tmp_path):
    assert together(finish_slowly, small_cohort.folder, tmp_path / "run") == [True, True]


def shared_norm():
    """Mean of a batch norm that has seen other values on each process."""
    fabric, network = joined(), nn.BatchNorm1d(2)
    network.running_mean += fabric.global_rank
    messages.share_buffers(fabric, network)
    return network.running_mean.tolist()


def test_batch_norms_are_validated_as_the_first_process_has_them():
    assert together(shared_norm) == [[0.0, 0.0]] * 2
