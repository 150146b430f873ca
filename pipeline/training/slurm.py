"""Tasks of SLURM: which of them srun started together, and a job none of whose it started.

The variables of a job (``SLURM_NTASKS``, ``SLURM_NTASKS_PER_NODE``, ``SLURM_PROCID``) are set in
its batch script as well, where one process runs, whatever was asked for. Those of a step are
srun's.
"""

import os
import re
from dataclasses import dataclass

from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment

from foldnorm.preprocessing.core.errors import InputError

FIRST_SPECIAL_STEP = 2**32 - 16  # a batch script, or the shell of salloc: no step of srun
PORTS = range(15_000, 25_000)


@dataclass(frozen=True)
class SlurmStep(ClusterEnvironment):
    """Tasks that one srun started, as Lightning asks for them.

    Attributes:
        tasks: of the step.
        nodes: that they run on, as many on each.
    """

    tasks: int
    nodes: int

    @classmethod
    def of_environment(cls) -> "SlurmStep | None":
        """Step of srun that this process is a task of; None if it is of none.

        Raises:
            InputError: its nodes have different numbers of tasks.
        """
        number = _number("SLURM_STEP_ID", _number("SLURM_STEPID", -1))
        tasks = _number("SLURM_STEP_NUM_TASKS", _number("SLURM_NTASKS", 1) if number >= 0 else 0)
        if not tasks or number >= FIRST_SPECIAL_STEP or "SLURM_PROCID" not in os.environ:
            return None
        nodes = _number("SLURM_STEP_NUM_NODES", _number("SLURM_NNODES", 1))
        on_each = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
        if tasks % nodes or len(re.sub(r"\(x\d+\)", "", on_each).split(",")) > 1:
            raise InputError(
                f"srun started {tasks} tasks on {nodes} nodes ({on_each}): training needs as many "
                "on each (--ntasks-per-node)"
            )
        return cls(tasks, nodes)

    @property
    def creates_processes_externally(self) -> bool:
        """True: srun does."""
        return True

    @property
    def main_address(self) -> str:
        """Name of the first node."""
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST")
        given = os.environ.get("MASTER_ADDR")
        return given or SLURMEnvironment.resolve_root_node_address(nodes or "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Port of the first task, another for each step of a job."""
        place = 101 * _number("SLURM_JOB_ID", 0) + max(_number("SLURM_STEP_ID", 0), 0)
        return _number("MASTER_PORT", PORTS[place % len(PORTS)])

    @staticmethod
    def detect() -> bool:
        """Say if this process is a task of a step."""
        return SlurmStep.of_environment() is not None

    def world_size(self) -> int:
        """Return the number of tasks."""
        return self.tasks

    def set_world_size(self, size: int) -> None:
        """Leave it as srun has it."""

    def global_rank(self) -> int:
        """Return the number of this task."""
        return _number("SLURM_PROCID", 0)

    def set_global_rank(self, rank: int) -> None:
        """Leave it as srun has it."""

    def local_rank(self) -> int:
        """Return the number of this task on its node."""
        return _number("SLURM_LOCALID", 0)

    def node_rank(self) -> int:
        """Return the number of the node."""
        return _number("SLURM_NODEID", 0)


def refuse_unstarted_tasks() -> None:
    """Refuse to train in a job of several tasks of which srun started none: the others never come.

    Raises:
        InputError: with what to do.
    """
    nodes = _number("SLURM_NNODES", 1)
    tasks = _number("SLURM_NTASKS", _number("SLURM_NTASKS_PER_NODE", 1) * nodes)
    tasks = max(tasks, _number("SLURM_NTASKS_PER_NODE", 1))
    if "SLURM_JOB_ID" in os.environ and tasks > 1:
        raise InputError(
            f"this SLURM job has {tasks} tasks, and srun started none of them: write "
            "`srun foldnorm train …`, or ask for one task (--ntasks=1)"
        )


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else otherwise
