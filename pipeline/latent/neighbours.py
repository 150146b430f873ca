"""The brains whose codes lie nearest."""

from typing import Any

import numpy as np

from foldnorm.pipeline.latent.space import LatentSpace


def nearest(space: LatentSpace, place: int, count: int) -> list[dict[str, Any]]:
    """Brains nearest to one, by the Euclidean distance of codes.

    Other hemispheres of the same participant are left out: they are no neighbours.

    Args:
        space: the brains.
        place: which of its codes.
        count: how many, at most.

    Returns:
        Rows of ``place`` (in the space), ``key``, ``distance``, and ``percentile`` of that distance
        among all pairs with the brain: 0 for the nearest.
    """
    participant = space.rows[place]["participant_id"]
    others = [n for n, row in enumerate(space.rows) if row["participant_id"] != participant]
    distances = np.linalg.norm(space.codes[others] - space.codes[place], axis=1)
    order = np.argsort(distances, kind="stable")
    return [
        {
            "place": others[n],
            "key": space.keys[others[n]],
            "distance": float(distances[n]),
            "percentile": 100 * rank / max(len(others) - 1, 1),
        }
        for rank, n in enumerate(order[:count])
    ]
