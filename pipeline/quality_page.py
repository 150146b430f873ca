"""``qc.html``: every volume of a cohort as a small montage, with its quantities; one file."""

from importlib.resources import files

import jinja2
import numpy as np

from foldnorm.pipeline.pictures import contact_sheet, inline_png, middle_slices, png
from foldnorm.preprocessing.cohort import DESCRIPTION, Cohort
from foldnorm.preprocessing.crop import bounding_box
from foldnorm.preprocessing.files import read_tsv, write_text
from foldnorm.preprocessing.quality import QC_TABLE, QUANTITIES

PAGE = "qc.html"
TEMPLATE = "quality_page.html.jinja"
MAX_SHOWN = 1000  # volumes; flagged ones come first, and all stand in qc.tsv


def write_quality_page(cohort: Cohort) -> None:
    """Write ``qc.html`` into a cohort folder, unless the cohort has not changed since."""
    page_path, described = cohort.folder / PAGE, cohort.folder / DESCRIPTION
    if page_path.is_file() and page_path.stat().st_mtime_ns > described.stat().st_mtime_ns:
        return
    rows = read_tsv(cohort.folder / QC_TABLE)
    order = sorted(range(len(rows)), key=lambda n: (not rows[n]["flags"], n))
    keys = cohort.keys()
    shown = [{**rows[n], "key": keys[n], "picture": _montage(cohort, n)} for n in order[:MAX_SHOWN]]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (files("foldnorm.pipeline") / TEMPLATE).read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        is_phantom=cohort.is_phantom,
        number=len(rows),
        flagged=sum(bool(row["flags"]) for row in rows),
        shown=shown,
        quantities=QUANTITIES,
    )
    write_text(page_path, page)


def _montage(cohort: Cohort, n: int) -> str:
    """Three slices through the middle of what the volume holds."""
    volume = np.array(cohort.volumes[n])
    held = bounding_box(volume != cohort.scheme.fill)
    if held is not None:
        volume = volume[held.slices]
    slices = middle_slices(volume, cohort.scheme.n_classes)
    return inline_png(png(contact_sheet([slices], scale=1)))  # the browser enlarges
