"""Groups of healthy brains: to fit scores on, to compare with, to calibrate."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import Cohort, CohortView

N_FITTED = 1000  # training brains at most that scores of network levels are fitted to
Group = Literal["training", "some_training", "unseen", "compared", "all_known"]


@dataclass(frozen=True)
class HealthyBrains:
    """Healthy brains by what they serve for.

    Attributes:
        training: that a model was trained on; without one, all of the training split, or all.
        some_training: at most `N_FITTED` of them.
        unseen: that no model was trained on: the validation split.
        compared: half of these, that sulci are compared with; the other half calibrates.
        all_known: for scores that no network could have learned by heart.
        local: controls of the site of those that will be scored.
        calibration: that p-values are counted in.
    """

    training: CohortView
    some_training: CohortView
    unseen: CohortView
    compared: CohortView
    all_known: CohortView
    local: CohortView
    calibration: CohortView

    @classmethod
    def from_cohorts(
        cls, reference: Cohort, controls: Cohort | None, *, has_model: bool, names_sulci: bool
    ) -> "HealthyBrains":
        """Divide a training cohort, or any healthy brains if there is no model.

        Controls that are held out in the reference too are not counted twice.
        """
        local = CohortView([]) if controls is None else controls.view(controls.indices())
        people = {row["participant_id"] for row in local.rows}
        train = reference.indices("train")
        training = reference.view(train)
        every, unseen = (
            reference.view(
                n
                for n in reference.indices(*splits)
                if reference.rows[n]["participant_id"] not in people
            )
            for splits in ((), ("validation",))
        )
        fit_indices, calibration_indices = split_validation(reference)
        calibrating = unseen if has_model else every
        return cls(
            training=training if len(train) or has_model else reference.view(reference.indices()),
            some_training=reference.view(subsample_evenly(train)),
            unseen=unseen,
            compared=reference.view(fit_indices),
            # Without a network nothing has been learned by heart: all healthy brains will do.
            all_known=training if has_model else every,
            local=local,
            calibration=local
            if len(local)
            else (reference.view(calibration_indices) if names_sulci else calibrating),
        )

    def group(self, name: Group) -> CohortView:
        """Return the brains that serve for one purpose."""
        brains: CohortView = getattr(self, name)
        return brains


def split_validation(reference: Cohort) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the validation brains in halves: to compare others with, and to calibrate.

    Returns:
        Indices to fit on, and indices to calibrate with.
    """
    held_out = reference.indices("validation")
    return held_out[::2], held_out[1::2]


def subsample_evenly(indices: NDArray[np.int64], at_most: int = N_FITTED) -> NDArray[np.int64]:
    """Return at most ``at_most`` of the indices, evenly spaced."""
    return indices[:: max(-(-len(indices) // at_most), 1)]
