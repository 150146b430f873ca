"""Names of the folds of a cohort, as its table of folds has them."""

from collections import defaultdict
from collections.abc import Sequence

from foldnorm.preprocessing.cohort.cohort import Cohort, family_of, row_key
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.naming.sulcus_names import NOT_NAMES, sulcus_name


def names_by_label(cohort: Cohort) -> dict[str, dict[int, str]]:
    """Fold label → name of its sulcus, of each volume, by its key."""
    tables: dict[str, dict[int, str]] = defaultdict(dict)
    for row in cohort.fold_table:
        if row["name"] not in NOT_NAMES:
            name = sulcus_name(row["name"], both_sides=False)
            tables[row_key(row)][int(row["label"])] = name
    return tables


def vocabulary_of(cohort: Cohort) -> str:
    """Return the nomenclature of the names of folds; of fold graphs where nothing is said.

    Raises:
        InputError: there are several.
    """
    known = list(cohort.description["Cohort"].get("fold_vocabularies", {"brainvisa": 0}))
    if len(known) > 1:
        raise InputError(f"names of several nomenclatures ({', '.join(known)}): {cohort.folder}")
    return str(known[0])


def with_families(cohort: Cohort, participants: Sequence[str]) -> set[str]:
    """Add to participants of a cohort all others of their families, who may be themselves again.

    Raises:
        InputError: the cohort has not such participants.
    """
    family = {row["participant_id"]: family_of(row) for row in cohort.rows}
    missing = set(participants) - set(family)
    if missing:
        raise InputError(f"no participant {sorted(missing)[0]} in: {cohort.folder}")
    named = {family[participant] for participant in participants}
    return {participant for participant, own in family.items() if own in named}
