from argparse import Namespace

import pytest

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.commands import demo
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_tsv


@pytest.mark.slow
def test_the_demo_ends_with_a_report_and_can_be_continued(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["demo", "-o", str(out), "--subjects", "40", "--steps", "2", "1", "--device", "cpu"]
    assert main(words) == 0
    page = (out / "report.html").read_text()
    assert "SYNTHETIC data" in page
    assert "Which brains are unusual?" in page
    assert "What finds it" in page
    cohort = Cohort.open(out / "cohort")
    assert cohort.preparation["space"] == "mni"
    assert cohort.voxel_size == (2.0, 2.0, 2.0)
    assert {row["sulcus"] for row in read_tsv(out / "names/sulci.tsv")} >= {"central", "calcarine"}
    for name in ("void", "restorer", "wgan_gp"):
        sizes = {row["size"] for row in read_tsv(out / f"benchmark_{name}/benchmark.tsv")}
        assert sizes == {"0", "200", "500", "800"}
    checkpoint = (out / "wgan_gp/checkpoints/last.ckpt").read_bytes()
    assert main([*words, "--quiet"]) == 0
    assert (out / "wgan_gp/checkpoints/last.ckpt").read_bytes() == checkpoint


@pytest.mark.parametrize(("codes", "ends", "begun"), [([0, 1, 0], 1, 3), ([0, 2, 0], 2, 2)])
def test_brains_that_were_left_out_do_not_end_it_and_an_error_does(
    codes, ends, begun, monkeypatch, tmp_path
):
    monkeypatch.setattr(demo, "commands", lambda _: [["report"]] * len(codes))
    given = iter(codes)
    arguments = Namespace(quiet=True, out=tmp_path, main=lambda _: next(given))
    assert demo.run(arguments) == ends
    assert len(list(given)) == len(codes) - begun
