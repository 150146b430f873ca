"""Draw new volumes from a trained model: NIfTI files and a contact sheet, the same for a seed."""

import argparse
from pathlib import Path

from foldnorm.pipeline.arguments import add_device, add_overwrite, add_seed, positive

HELP = "draw new volumes from a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--given",
        nargs="+",
        default=[],
        metavar="COLUMN=VALUE",
        help="what a conditioned model is told; other columns are drawn as in training",
    )
    parser.add_argument("--number", type=positive, default=16, help="how many (default 16)")
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    import numpy as np
    import torch

    from foldnorm.models.protocols import Samples
    from foldnorm.pipeline.arguments import refuse_existing
    from foldnorm.pipeline.devices import choose_device
    from foldnorm.pipeline.run_folder import RunFolder
    from foldnorm.preprocessing.errors import InputError
    from foldnorm.preprocessing.files import write_bytes
    from foldnorm.preprocessing.pictures import contact_sheet, middle_slices, png
    from foldnorm.preprocessing.volumes import write_labels

    refuse_existing(arguments.out / "contact_sheet.png", arguments.overwrite)
    run_folder = RunFolder.open(arguments.run_folder)
    trained = run_folder.load(choose_device(arguments.device))
    if not isinstance(trained.model, Samples):
        raise InputError(f"{type(trained.model).__name__} does not draw new volumes")
    given = {}
    for words in arguments.given:
        column, equals, value = words.partition("=")
        if not equals:
            raise InputError(f"--given: expected COLUMN=VALUE, got {words!r}")
        given[column] = value
    rng = np.random.default_rng(arguments.seed)
    condition = torch.from_numpy(trained.conditions.draw(arguments.number, rng, given))
    volumes = trained.model.sample(
        arguments.number,
        torch.Generator().manual_seed(arguments.seed),
        condition if trained.conditions.size else None,
    )
    affine = np.diag([*run_folder.data["voxel_size"], 1.0])
    drawn = volumes.cpu().numpy()
    for n, volume in enumerate(drawn):
        path = arguments.out / f"synthetic-{n:04d}_dseg.nii.gz"
        write_labels(path, volume, affine, description="foldnorm SYNTHETIC, not a brain")
    n_classes = len(run_folder.data["preparation"]["scheme"]["classes"])
    slices = [middle_slices(volume, n_classes) for volume in drawn]
    rows = [[*a, *b] for a, b in zip(slices[::2], [*slices[1::2], []], strict=False)]
    write_bytes(arguments.out / "contact_sheet.png", png(contact_sheet(rows)))
    if not arguments.quiet:
        print(f"{len(drawn)} volumes: {arguments.out}")
    return 0
