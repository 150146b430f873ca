"""``qc.html``: every volume of a cohort before and after preparation, with its quantities."""

from importlib.resources import files

import jinja2

from foldnorm.pipeline.artifacts import QUALITY_PAGE
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort, row_key
from foldnorm.preprocessing.cohort.quality import QC_TABLE, QUANTITIES
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.files import read_tsv, write_text

TEMPLATE = files("foldnorm.pipeline.report") / "templates" / "quality_page.html.jinja"


def write_quality_page(cohort: Cohort) -> None:
    """Write ``qc.html`` into a cohort folder, unless the cohort has not changed since.

    The pictures lie beside each subject, made when it was prepared: the page only points at them.
    """
    page_path, described = cohort.folder / QUALITY_PAGE, cohort.folder / DESCRIPTION
    if page_path.is_file() and page_path.stat().st_mtime_ns > described.stat().st_mtime_ns:
        return
    rows = sorted(read_tsv(cohort.folder / QC_TABLE), key=lambda row: not row["flags"])
    shown = [{"warnings": "", **row, "key": row_key(row), "picture": _picture(row)} for row in rows]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = TEMPLATE.read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        is_phantom=cohort.is_phantom,
        number=len(rows),
        volumes=counted(len(rows), "volume"),
        flagged=sum(bool(row["flags"]) for row in rows),
        shown=shown,
        quantities=QUANTITIES,
    )
    write_text(page_path, page)


def _picture(row: dict[str, str]) -> str:
    return f"{row['participant_id']}/figures/{row_key(row)}_qc.png"
