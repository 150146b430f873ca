"""From one brain to another through the latent space."""

from typing import Literal

import numpy as np

from foldnorm.pipeline.latent.space import Codes


def interpolate(
    first: Codes, second: Codes, steps: int, path: Literal["straight", "spherical"] = "straight"
) -> Codes:
    """Codes from one to the other, both included.

    ``straight``: u + (k / n) (v − u). ``spherical``: along the arc between their directions
    (Shoemake 1985), the length going evenly from one to the other; in many dimensions codes of
    N(0, I) lie near a sphere, and the middle of a straight line lies where no brain is.

    Args:
        first: u, (d,).
        second: v, (d,).
        steps: n, at least 1.
        path: see above.

    Returns:
        (n + 1, d).
    """
    share = np.linspace(0, 1, steps + 1)[:, None]
    straight = first + share * (second - first)
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    if path == "straight" or min(lengths) == 0:
        return straight
    a, b = first / lengths[0], second / lengths[1]
    angle = np.arccos(np.clip(a @ b, -1, 1))
    if np.sin(angle) < 1e-6:  # one direction: the arc is the line
        return straight
    arc = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    return arc * (lengths[0] + share * (lengths[1] - lengths[0]))
