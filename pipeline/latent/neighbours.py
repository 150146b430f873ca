"""The brains whose codes lie nearest."""

from typing import Any

import numpy as np

from foldnorm.pipeline.latent.space import LatentSpace


def nearest(space: LatentSpace, index: int, count: int) -> list[dict[str, Any]]:
    """Brains nearest to one, by the Euclidean distance of codes.

    Other hemispheres of the same participant are left out: they are no neighbours.

    Args:
        space: the brains.
        index: which of its codes.
        count: how many, at most.

    Returns:
        Rows of ``index`` (in the space), ``key``, ``distance``, and ``percentile`` of that distance
        among all pairs with the brain: 0 for the nearest.
    """
    participant = space.rows[index]["participant_id"]
    others = [n for n, row in enumerate(space.rows) if row["participant_id"] != participant]
    distances = np.linalg.norm(space.codes[others] - space.codes[index], axis=1)
    order = np.argsort(distances, kind="stable")
    return [
        {
            "index": others[n],
            "key": space.keys[others[n]],
            "distance": float(distances[n]),
            "percentile": 100 * rank / max(len(others) - 1, 1),
        }
        for rank, n in enumerate(order[:count])
    ]
