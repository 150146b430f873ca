"""Processes that train together, forked from the tests': they start at once."""

import multiprocessing
import os
import socket
import traceback

from foldnorm.pipeline.training.distributed import Group, launch


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def together(work, *arguments, n=2):
    """Call `work(*arguments)` in processes that srun might have started; what each returned."""
    context = multiprocessing.get_context("fork")
    ends, started = [], []
    step = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(n),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}  # fmt: skip
    for rank in range(n):
        here, there = context.Pipe()
        task = {**step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        started.append(context.Process(target=_task, args=(there, task, work, arguments)))
        started[-1].start()
        there.close()
        ends.append(here)
    try:
        found = [end.recv() for end in ends]
    finally:
        for process in started:
            process.join(60)
            process.kill()
    faults = [made for is_fault, made in found if is_fault]
    assert not faults, "\n".join(faults)
    return [made for _, made in found]


def _task(end, environment, work, arguments):
    os.environ.update(environment)
    try:
        end.send((False, work(*arguments)))
    except BaseException:
        end.send((True, traceback.format_exc()))
    os._exit(0)


def joined():
    """Join the processes of `together`."""
    return launch("cpu", Group.of_launcher())
