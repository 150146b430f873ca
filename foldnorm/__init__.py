"""Learn what healthy cortical folding looks like, and score brains against it.

Everything that a script or a notebook needs is here; paths may be ``str`` or ``Path``:

    >>> import foldnorm as fn
    >>> cohort = fn.datasets.phantoms(8, voxel_size=4)  # or fn.preprocess(source, "cohort", …)
    >>> config = fn.load_config("autoencoder", cohort, overrides={"training.steps": 2})
    >>> model = fn.train(config, cohort, "run")  # later: fn.load("run")
    >>> codes = model.encode(cohort.select("test"))
    >>> figure = fn.plot(model.reconstruct(cohort[0])[0])

`Cohort.dataset` gives a PyTorch ``Dataset`` of ``MetaTensor`` dictionaries, `transforms` the
preprocessing as MONAI transforms, `metrics` the pure functions that figures are made of, and
`Scorer` the scores. What is wrong with an input is an `InputError`, a ``ValueError`` of one line.

Names are loaded when they are first asked for: ``import foldnorm`` itself takes no time.
"""

from importlib.metadata import version

import lazy_loader

from foldnorm.environment import prepare_environment as _prepare_environment

_prepare_environment()

__version__ = version("foldnorm")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
