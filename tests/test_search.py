"""Search: what varies, trials that are ordinary runs, stops and restarts, processes that share."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages.journal import JournalFileSymlinkLock

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.studies import search as search_module
from foldnorm.pipeline.studies.search_journal import journal_lock, sampler_of, worker_number
from foldnorm.pipeline.studies.search_space import Axis, SearchOptions
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError, Stopped
from foldnorm.preprocessing.core.files import read_tsv

TINY = ["--model.init_args.channels=[8]", "--model.init_args.code_channels=2",
        "--training.steps=4", "--training.validate_every=2", "--training.batch_size=4"]  # fmt: skip
RATES = "training.learning_rate=1e-3,1e-30"


def words(cohort, out, *more):
    return ["search", "autoencoder", str(cohort.folder), "-o", str(out),
            "--device", "cpu", *TINY, *more]  # fmt: skip


def search(cohort, out, *more):
    return main([*words(cohort, out, *more), "--quiet"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1,2", Axis("a.b", (1, 2))),
        ("a=1e-4,0.5", Axis("a", (1e-4, 0.5))),
        ("a=null,x,true", Axis("a", (None, "x", True))),
        ("a=1..8", Axis("a", (), 1, 8)),
        ("a=1e-4..1e-2:log", Axis("a", (), 1e-4, 1e-2, True)),
    ],
)
def test_what_varies_is_read(text, expected):
    assert Axis.parse(text) == expected


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=2..1", "a=x..y", "a=1..2:exp", "a=[1,2"])
def test_what_cannot_vary_is_refused(text):
    with pytest.raises(InputError, match="--vary: expected KEY="):
        Axis.parse(text)


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("training.lr=1,2", "--training.lr: no such key"),
        ("training.learning_rate=1e-3,abc", "--training.learning_rate: expected float, got abc"),
        ("training.steps=0.5..2", "--training.steps: expected int, got 0.5"),
    ],
)
def test_what_the_configuration_does_not_take_is_refused_before_the_first_trial(
    vary, said, small_cohort, tmp_path, capsys
):
    assert search(small_cohort, tmp_path / "s", "--vary", vary, "--trials", "2") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_trial_that_fails_says_why(small_cohort, tmp_path, capsys):
    out, vary = tmp_path / "s", "training.monitor=validation/loss,validation/nonsense"
    assert search(small_cohort, out, "--vary", vary, "--sampler", "grid") == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("foldnorm: trial 1: ")
    rows = read_tsv(out / "trials.tsv")
    assert [row["state"] for row in rows] == ["complete", "fail"]
    assert not rows[0]["reason"]
    assert rows[1]["reason"] in said[0]


def test_a_grid_is_finished_once_and_the_best_is_a_configuration(small_cohort, tmp_path, capsys):
    out = tmp_path / "s"
    assert main(words(small_cohort, out, "--vary", RATES, "--sampler", "grid")) == 0
    assert "2 trials finished, 0 failed" in capsys.readouterr().out
    rows = read_tsv(out / "trials.tsv")
    assert [row["state"] for row in rows] == ["complete"] * 2
    values = {row["training.learning_rate"]: float(row["value"]) for row in rows}
    assert values["0.001"] < values["1e-30"]
    for row in rows:  # an ordinary run, and its best validated figure
        run = out / "trials" / row["folder"]
        measured = MetricsLog(run / "metrics.csv", up_to=99).column("validation/loss")[1]
        assert float(row["value"]) == pytest.approx(min(measured), rel=1e-4)
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert best["training"]["learning_rate"] == 0.001
    assert search(small_cohort, out, "--vary", RATES, "--sampler", "grid") == 0
    assert len(read_tsv(out / "trials.tsv")) == 2  # nothing is left
    again = ["train", str(out / "best.yaml"), str(small_cohort.folder),
             "-o", str(tmp_path / "run"), "--device", "cpu", "--quiet"]  # fmt: skip
    assert main(again) == 0
    assert search(small_cohort, out, "--vary", "training.seed=1,2", "--sampler", "grid") == 2
    page = tmp_path / "report.html"
    assert main(["report", str(out), "-o", str(page), "--quiet"]) == 0
    text = page.read_text()
    assert "2 complete" in text
    assert "<svg" in text
    for row in rows:
        assert f"{float(row['value']):.5g}" in text


def test_a_stopped_trial_is_gone_on_with(small_cohort, tmp_path, monkeypatch):
    out = tmp_path / "s"
    options = SearchOptions(
        (Axis.parse(RATES),), sampler="grid", overrides=tuple(TINY), device="cpu"
    )
    train, calls = search_module.train, []

    def stopping(*arguments, **more):
        calls.append(1)
        return 130 if len(calls) == 2 else train(*arguments, **more)

    monkeypatch.setattr(search_module, "train", stopping)
    with pytest.raises(Stopped):
        search_module.search("autoencoder", small_cohort, out, options)
    stopped, waiting = read_tsv(out / "trials.tsv")
    assert (stopped["state"], waiting["state"]) == ("fail", "waiting")
    search_module.search("autoencoder", small_cohort, out, options)
    rows = read_tsv(out / "trials.tsv")
    assert [row["state"] for row in rows] == ["fail", "complete", "complete"]
    assert rows[2]["folder"] == stopped["folder"]
    assert rows[2]["training.learning_rate"] == stopped["training.learning_rate"]
    # Its first stretch was not trained again: 2 of 4 steps were left, and 4 of the other trial.
    assert len(calls) == 2 + 1 + 2


def test_a_trial_of_a_process_that_is_gone_is_begun_again(small_cohort, tmp_path):
    out = tmp_path / "s"
    options = SearchOptions(
        (Axis.parse(RATES),), sampler="grid", trials=1, overrides=tuple(TINY), device="cpu"
    )
    search_module.search("autoencoder", small_cohort, out, options)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(out / "journal.log"))
    )
    study = optuna.load_study(study_name="foldnorm", storage=storage)
    gone = subprocess.run(
        [sys.executable, "-c", "import os, socket; print(os.getpid(), socket.gethostname())"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    lost = study.ask()
    lost.suggest_categorical("training.learning_rate", (1e-3, 1e-30))
    lost.set_user_attr("process", [gone[1], int(gone[0])])
    search_module.search("autoencoder", small_cohort, out, options)
    states = [row["state"] for row in read_tsv(out / "trials.tsv")]
    assert states == ["complete", "fail", "complete"]


def test_a_combination_that_does_not_work_stops_no_other(small_cohort, tmp_path):
    out = tmp_path / "s"
    vary = ["--vary", "model.init_args.channels=[8],[8, 8, 8, 8, 8]", "--sampler", "grid"]
    assert search(small_cohort, out, *vary) == 2  # a list is no value
    vary = ["--vary", "training.batch_size=4,-1", "--sampler", "grid"]
    words_without = [w for w in TINY if "batch_size" not in w]
    code = main(["search", "autoencoder", str(small_cohort.folder), "-o", str(out),
                 "--device", "cpu", "--quiet", *words_without, *vary])  # fmt: skip
    assert code == 1
    assert sorted(row["state"] for row in read_tsv(out / "trials.tsv")) == ["complete", "fail"]


def test_the_test_split_is_not_touched(small_cohort, tmp_path, monkeypatch):
    indices = Cohort.indices

    def without_test(self, *splits):
        assert splits
        assert "test" not in splits
        return indices(self, *splits)

    monkeypatch.setattr(Cohort, "indices", without_test)
    vary = ["--vary", "training.learning_rate=1e-4..1e-2:log", "--sampler", "random"]
    assert search(small_cohort, tmp_path / "s", *vary, "--trials", "2") == 0
    (first, second) = read_tsv(tmp_path / "s/trials.tsv")
    assert 1e-4 <= float(first["training.learning_rate"]) <= 1e-2
    assert first["training.learning_rate"] != second["training.learning_rate"]


@pytest.mark.slow
def test_two_processes_share_one_grid(small_cohort, tmp_path):
    out = tmp_path / "s"
    command = [sys.executable, "-m", "foldnorm.pipeline.cli",
               *words(small_cohort, out, "--vary", "training.seed=1,2,3,4", "--sampler", "grid",
                      "--trials", "2", "--quiet")]  # fmt: skip
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    rows = read_tsv(out / "trials.tsv")
    assert len({row["training.seed"] for row in rows}) >= 3
    assert main(words(small_cohort, out, "--vary", "training.seed=1,2,3,4", "--sampler", "grid",
                      "--quiet")) == 0  # fmt: skip
    done = {row["training.seed"] for row in read_tsv(out / "trials.tsv") if row["value"]}
    assert done == {"1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"axes": ()}, "nothing to search"), ({"sampler": "random"}, "needs --trials"),
     ({"axes": (Axis("a", (), 0, 1),), "sampler": "grid"}, "takes no range")],
)  # fmt: skip
def test_searches_that_make_no_sense_are_refused(more, reason):
    with pytest.raises(InputError, match=reason):
        SearchOptions(**{"axes": (Axis("a", (1, 2)),), "trials": None, **more})


@pytest.fixture
def tiny(small_cohort):
    """Searches of one trial, in a relative folder."""

    def search_in(out, **more):
        options = SearchOptions(
            (Axis.parse("training.learning_rate=1e-4..1e-2:log"),),
            **{"sampler": "random", "trials": 1, "overrides": tuple(TINY), "device": "cpu", **more},
        )
        return search_module.search("autoencoder", small_cohort, out, options)

    return search_in


@pytest.mark.parametrize("target", ["search/journal.log", "/journal.log", "journal.log"])
def test_a_lock_of_optuna_that_a_dead_process_left_is_taken_away(
    tiny, tmp_path, monkeypatch, caplog, target
):
    monkeypatch.chdir(tmp_path)
    out = Path("search")
    out.mkdir()
    (out / "journal.log.lock").symlink_to(target)
    assert len(tiny(out)) == 1
    assert "journal.log.lock" in caplog.text
    assert not (out / "journal.log.lock").is_symlink()


def test_the_kernel_takes_the_lock_of_a_dead_process_back(tiny, tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from foldnorm.pipeline.studies.search_journal import KernelLock;"
        "KernelLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert len(tiny(tmp_path)) == 1
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "journal.log")], check=False)
    assert len(tiny(tmp_path)) == 2


def test_where_the_kernel_knows_no_locks_it_is_optunas(tiny, tmp_path, monkeypatch):
    def unsupported(handle, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert isinstance(journal_lock(tmp_path / "journal.log"), JournalFileSymlinkLock)
    assert len(tiny(tmp_path)) == 1


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"\0" * 99,
                                     b'{"op_code": 99}\n', b"[1]\n"])  # fmt: skip
def test_a_damaged_journal_is_one_line(tiny, tmp_path, content):
    assert len(tiny(tmp_path)) == 1
    (tmp_path / "journal.log").write_bytes(content)
    with pytest.raises(InputError, match=r"journal of a search .*journal\.log"):
        tiny(tmp_path)


@pytest.mark.parametrize("begin", [0, 1])
def test_half_a_line_of_a_killed_process_is_taken_away(tiny, tmp_path, caplog, begin):
    if begin:
        assert len(tiny(tmp_path)) == begin
    with (tmp_path / "journal.log").open("ab") as stream:
        stream.write(b'{"op_code":4,"worker_')
    assert len(tiny(tmp_path)) == begin + 1
    assert "half a line" in caplog.text
    assert len(tiny(tmp_path)) == begin + 2


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_no_two_processes_draw_the_same_points_nor_does_one_again(kind):
    def drawn(*which):
        study = optuna.create_study(sampler=sampler_of(kind, *which))
        return study.ask().suggest_float("x", 0, 1)

    assert drawn(0, 0, 0) == drawn(0, 0, 0)
    assert len({drawn(0, 0, 0), drawn(1, 0, 0), drawn(0, 1, 0), drawn(0, 0, 1)}) == 4


def test_processes_that_search_at_once_are_numbered(tmp_path):
    code = (
        "import sys, time; from pathlib import Path;"
        "from foldnorm.pipeline.studies.search_journal import worker_number\n"
        "with worker_number(Path(sys.argv[1])) as number: print(number, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "0\n"
        with worker_number(tmp_path) as number:
            assert number == 1
        other.communicate("\n")
    with worker_number(tmp_path) as number:
        assert number == 0
