import pytest

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_tsv


@pytest.mark.slow
def test_the_demo_ends_with_a_report_and_can_be_continued(tmp_path, capsys):
    words = ["demo", "-o", str(tmp_path / "out"), "--subjects", "40", "--steps", "2", "--device",
             "cpu"]  # fmt: skip
    assert main(words) == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "PHANTOM data" in page
    assert "Deletion benchmark" in page
    assert Cohort.open(tmp_path / "out/cohort").shape == (40, 40, 40)
    sizes = {row["size"] for row in read_tsv(tmp_path / "out/benchmark/benchmark.tsv")}
    assert sizes == {"0", "200", "500", "800"}
    checkpoint = (tmp_path / "out/wgan_gp/checkpoints/last.ckpt").read_bytes()
    assert main([*words, "--quiet"]) == 0
    assert (tmp_path / "out/wgan_gp/checkpoints/last.ckpt").read_bytes() == checkpoint
