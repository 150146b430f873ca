"""Latent codes of a cohort: OUT/codes.npy, (N, d) float32, and OUT/codes.tsv, a row each.

A brain that cannot be read has a row in neither, and is named.
"""

import argparse

from foldnorm.pipeline.commands.arguments import (
    add_cohort,
    add_device,
    add_out,
    add_overwrite,
    add_run,
)
from foldnorm.preprocessing.core.counts import counted

HELP = "latent codes of a cohort"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run(parser)
    add_cohort(parser)
    add_out(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    import numpy as np

    from foldnorm.pipeline.artifacts import CODES, CODES_SIDECAR, CODES_TABLE
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.latent.space import encode_each
    from foldnorm.pipeline.runs.devices import choose_device
    from foldnorm.pipeline.runs.run_folder import RunFolder
    from foldnorm.preprocessing.cohort.cohort import Cohort
    from foldnorm.preprocessing.core.files import atomic_path, write_json, write_tsv
    from foldnorm.preprocessing.core.problems import Problem

    refuse_existing(arguments.out / CODES, arguments.overwrite)
    device = choose_device(arguments.device)
    run_folder, cohort = RunFolder.open(arguments.run_folder), Cohort.open(arguments.cohort)
    run_folder.check_cohort(cohort)
    trained, failed = run_folder.load(device), list[Problem]()
    indices, codes = encode_each(trained, cohort, cohort.some_indices(), failed)
    rows = [cohort.rows[index] for index in indices]
    with atomic_path(arguments.out / CODES) as temporary, temporary.open("wb") as stream:
        np.save(stream, codes, allow_pickle=False)
    write_tsv(arguments.out / CODES_TABLE, rows, tuple(rows[0]))
    of = {"run": str(run_folder.folder.resolve()), "cohort": str(cohort.folder.resolve())}
    write_json(arguments.out / CODES_SIDECAR, of)
    sides = counted(codes.shape[1], "dimension")
    summary = f"{counted(len(codes), 'code')} of {sides}, {len(failed)} failed: {arguments.out}"
    return conclude_batch(arguments, len(codes), failed, summary)
