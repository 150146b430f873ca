"""`foldnorm view`: what it serves, to whom, and what the page does with it."""

import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from conftest import Watched, colours_of, unnamed_controls
from test_vnet import pair_cohort, run  # noqa: F401  # fixtures

from foldnorm.models.classes import to_classes
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.latent.neighbours import nearest
from foldnorm.pipeline.latent.space import LatentSpace
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.view.library import Library
from foldnorm.pipeline.view.server import MAX_CONNECTIONS, ViewServer
from foldnorm.preprocessing.core.errors import InputError

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def scores(small_run, small_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("view") / "scores"
    words = ["score", small_run, small_cohort.folder, "-o", out, "--device", "cpu", "--quiet"]
    assert main(list(map(str, words))) == 0
    return out


@pytest.fixture(scope="module")
def server(small_run, small_cohort, scores):
    serving = ViewServer(Library([small_cohort.folder, small_run, scores], "cpu"))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


def ask(server, path, *, host=None, token=None, method="GET"):
    """Status, headers and content of a request whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, f"/{token or server.token}/{path}", skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def labels(content):
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    return np.asarray(image.dataobj)


def test_it_serves_volumes_and_what_the_model_makes_of_them(server, small_cohort, small_run):
    assert np.array_equal(labels(ask(server, "volume/0/3")[2]), small_cohort.volumes[3])
    model = RunFolder.open(small_run).load().model
    volume = torch.from_numpy(np.array(small_cohort.volumes[[3]]))
    with torch.no_grad():
        made = to_classes(model.decode(model.encode(volume)))[0].numpy()
    assert np.array_equal(labels(ask(server, "made/0/3/0")[2]), made)
    different = labels(ask(server, "difference/0/3/0")[2])
    assert np.array_equal(different == 1, made < volume[0].numpy())
    assert np.array_equal(different == 2, made > volume[0].numpy())
    status, _, content = ask(server, "model/0/0")
    assert status == 200
    about = json.loads(content)
    assert (about["makes"], about["compared"]) == ("reconstruction", True)


def test_it_knows_scores_and_neighbours(server, small_cohort, small_run):
    keys = json.loads(ask(server, "keys/0")[2])
    assert keys == small_cohort.keys()
    place = int(small_cohort.indices("test")[0])
    about = json.loads(ask(server, f"brain/0/{place}")[2])
    assert about["facts"]["participant_id"] == small_cohort.rows[place]["participant_id"]
    (scored,) = about["scores"]
    row = next(row for row in scored["rows"] if row[0] == "latent_mahalanobis")
    assert 0 < float(row[2]) <= 1
    found = json.loads(ask(server, "neighbours/0/3/0")[2])
    space = LatentSpace.open(small_run, small_cohort.folder, [], "cpu")
    expected = nearest(space, 3, 5)
    assert [near["key"] for near in found] == [near["key"] for near in expected]
    assert found[0]["distance"] == pytest.approx(expected[0]["distance"], rel=1e-5)


def test_without_the_token_there_is_nothing(server):
    for token in ("wrong", server.token[:-1], server.token + "x", "%00", ".."):
        status, _, content = ask(server, "contents", token=token)
        assert status == 403, token
        assert b"crops" not in content
    assert ask(server, "contents")[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}",
     "127.0.0.1:{port}.evil.example"],
)  # fmt: skip
def test_asked_by_another_name_it_refuses(server, host):
    assert ask(server, "contents", host=host.format(port=server.server_port))[0] == 421


def test_its_own_names_are_fine(server):
    assert ask(server, "contents", host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["../../../../etc/passwd", "volume/../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd",
     "static/niivue.LICENSE", "niivue.LICENSE", "volume/0/..", "volume/0/-1", "volume/0/%D9%A3",
     "volume/0/9999", "volume/7/0", "made/0/0/5", "keys/0/0", "volume/0", "volume/0/0/../1",
     "contents/", "volume/0/" + "9" * 5000, "participants.tsv", "view.js/../../server.py"],
)  # fmt: skip
def test_nothing_but_numbers_that_exist_is_served(server, path):
    status, _, content = ask(server, path)
    assert status == 404
    assert json.loads(content) == {"error": "no such thing here"}


def test_only_reading_is_possible(server):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert ask(server, "contents", method=method)[0] == 501


def test_only_this_machine_is_listened_to(server):
    assert server.server_address[0] == "127.0.0.1"
    try:
        own = socket.gethostbyname(socket.gethostname())
    except socket.gaierror:
        pytest.skip("the name of this machine leads to no address")
    if own.startswith("127."):
        pytest.skip("this machine has no address but its loopback")
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection((own, server.server_port), timeout=2)


@pytest.fixture
def plain_server(small_cohort):
    serving = ViewServer(Library([small_cohort.folder]))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


@pytest.mark.parametrize("header", ["Content-Length: 60", "Transfer-Encoding: chunked"])
def test_the_body_of_a_request_is_no_second_request(plain_server, header):
    host = f"127.0.0.1:{plain_server.server_port}"
    line = f"GET /{plain_server.token}/contents HTTP/1.1\r\nHost: {host}\r\n"
    with socket.create_connection(("127.0.0.1", plain_server.server_port), timeout=20) as asking:
        asking.sendall(f"{line}{header}\r\n\r\n{line}\r\n".encode())
        answers = b"".join(iter(lambda: asking.recv(4096), b""))
    assert answers.count(b"HTTP/1.1") == 1
    assert answers.startswith(b"HTTP/1.1 400")


def test_connections_that_ask_nothing_do_not_pile_up(plain_server):
    idle = [
        socket.create_connection(("127.0.0.1", plain_server.server_port), timeout=20)
        for _ in range(MAX_CONNECTIONS)
    ]
    with socket.create_connection(("127.0.0.1", plain_server.server_port), timeout=20) as another:
        assert another.recv(1) == b""  # closed at once
    for connection in idle:
        connection.close()
    for _ in range(200):  # their threads end when they see it
        try:
            assert ask(plain_server, "contents")[0] == 200
        except (http.client.HTTPException, OSError):
            time.sleep(0.05)
        else:
            return
    pytest.fail("no connection after the others were closed")


def test_the_token_is_not_in_the_browsers_command_line(small_cohort, monkeypatch):
    seen = []

    def open_browser(url):
        path = Path(url.removeprefix("file://"))
        seen.append((url, path.read_text(), path.stat().st_mode & 0o777, path))

    monkeypatch.setattr("webbrowser.open", open_browser)
    monkeypatch.setattr(ViewServer, "serve_forever", lambda self: None)
    assert main(["view", str(small_cohort.folder)]) == 0
    ((url, page, mode, path),) = seen
    token = page.partition("http://127.0.0.1:")[2].split("/")[1].partition('"')[0]
    assert len(token) == 32
    assert token not in url
    assert mode == 0o600
    assert not path.exists()


@pytest.mark.parametrize(
    "name", ["config.yaml", "data.json", "checkpoints/last.ckpt", "models/model.safetensors"]
)
def test_no_file_of_a_run_may_lie_elsewhere(small_cohort, tmp_path, name):
    run_folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.write_text("{}")
    path = run_folder / name
    path.parent.mkdir(parents=True)
    (run_folder / "config.yaml").write_text("{}")
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    with pytest.raises(InputError, match=f"leads out of the folders that were given.*{name}"):
        Library([small_cohort.folder, run_folder])


def test_headers_keep_the_page_to_itself(server):
    _, headers, _ = ask(server, "")
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers


def test_links_out_of_the_given_folders_are_refused(small_cohort, tmp_path):
    for path in small_cohort.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match="leads out of the folders that were given"):
        Library([tmp_path])
    assert Library([tmp_path, small_cohort.folder]).cohorts  # both were given


@pytest.mark.parametrize("name", ["pairs.npy", "dataset_description.json", "volumes.npy"])
def test_no_file_of_a_cohort_may_lie_elsewhere(pair_cohort, tmp_path, name):  # noqa: F811
    for path in pair_cohort.folder.iterdir():
        if path.is_file() and path.name != name:
            shutil.copy(path, tmp_path)
    (tmp_path / name).symlink_to(pair_cohort.folder / name)
    with pytest.raises(InputError, match=f"leads out of the folders that were given.*{name}"):
        Library([tmp_path])


def test_a_cohort_prepared_otherwise_is_a_line_not_a_crash(small_run, phantom_cohort, tmp_path):
    library = Library([phantom_cohort.folder, small_run], "cpu")
    with pytest.raises(InputError, match="preprocessing differs"):
        library.model(0, 0)
    with pytest.raises(InputError, match="nothing to look at"):
        Library([small_run])
    with pytest.raises(InputError, match="neither a cohort, a run, scores, named sulci nor codes"):
        Library([tmp_path])


def test_codes_of_embed_are_used(small_run, small_cohort, tmp_path, monkeypatch):
    words = ["embed", small_run, small_cohort.folder, "-o", tmp_path / "codes", "--device", "cpu"]
    assert main([*map(str, words), "--quiet"]) == 0
    monkeypatch.setattr("foldnorm.pipeline.view.library.MAX_ENCODED", 3)
    plain = Library([small_cohort.folder, small_run], "cpu")
    with pytest.raises(InputError, match="24 brains are too many to encode now"):
        plain.neighbours(0, 3, 0)
    library = Library([small_cohort.folder, small_run, tmp_path / "codes"], "cpu")
    space = LatentSpace.open(small_run, small_cohort.folder, [], "cpu")
    expected = [near["key"] for near in nearest(space, 3, 5)]
    assert [near["key"] for near in library.neighbours(0, 3, 0)] == expected
    codes, table = (tmp_path / "codes" / name for name in ("codes.npy", "codes.tsv"))
    np.save(codes, np.load(codes)[1:])  # as embed leaves a brain out that it cannot read
    header, _, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *lines]))
    library = Library([small_cohort.folder, small_run, tmp_path / "codes"], "cpu")
    with pytest.raises(InputError, match="24 brains are too many to encode now"):
        library.neighbours(0, 3, 0)


def test_a_translation_is_shown_beside_the_true_pair(pair_cohort, run):  # noqa: F811
    library = Library([pair_cohort.folder, run], "cpu")
    about = library.model(0, 0)
    assert (about["makes"], about["compared"], about["from_pair"]) == ("translation", True, False)
    assert about["names"] != about["source_names"]
    made, different = labels(library.made(0, 2, 0)), labels(library.difference(0, 2, 0))
    assert np.array_equal(different == 1, made < pair_cohort.pairs[2])
    assert library.neighbours(0, 2, 0) == []


def test_a_restoration_is_compared_with_the_brain_that_it_restores(small_cohort, tmp_path):
    words = ["train", "restorer", small_cohort.folder, "-o",
             tmp_path / "run", "--model.init_args.edits", "[balls]", "--model.init_args.channels",
             "[8, 8]", "--model.init_args.convolutions", "[1, 1]", "--training.steps", "2",
             "--device", "cpu", "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    library = Library([small_cohort.folder, tmp_path / "run"], "cpu")
    about = library.model(0, 0)
    assert (about["makes"], about["compared"]) == ("restoration", True)
    made, different = labels(library.made(0, 2, 0)), labels(library.difference(0, 2, 0))
    assert np.array_equal(different == 2, made > small_cohort.volumes[2])
    assert library.neighbours(0, 2, 0) == []


def test_the_command_prints_an_address_and_ends_on_ctrl_c(small_cohort):
    words = [sys.executable, "-m", "foldnorm.pipeline.cli", "view", str(small_cohort.folder)]
    # A shell starts what it puts in the background with Ctrl-C ignored, and tests may run there.
    started = subprocess.Popen(
        [*words, "--no-browser"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    address = started.stdout.readline().split()[0]
    assert address.startswith("http://127.0.0.1:")
    started.send_signal(signal.SIGINT)
    assert started.wait(timeout=20) == 0


def test_a_port_that_is_none_is_refused(small_cohort, capsys):
    assert main(["view", str(small_cohort.folder), "--port", "70000", "--no-browser"]) == 2
    assert "expected a port below 65536" in capsys.readouterr().err


@pytest.fixture(scope="module")
def opened(browser, server):
    watched = Watched(browser, viewport={"width": 1400, "height": 860})
    watched.page.goto(server.url)
    watched.page.wait_for_selector('body[data-shown="0/0/0"]')
    yield watched
    watched.page.close()


def test_the_page_shows_input_reconstruction_and_difference(opened, server):
    page = opened.page
    for name in ("input", "made", "difference"):
        assert colours_of(page.query_selector(f"#{name} canvas")) > 5
    assert opened.complaints == []
    assert opened.outside(server.url) == []
    assert page.inner_text("#where") == "sub-s00"
    assert page.inner_text("#count") == "1 / 24"
    assert "latent_mahalanobis" in page.inner_text("#scores")
    assert len(page.query_selector_all("#neighbours button")) == 5
    assert unnamed_controls(page) == []


def test_keys_search_and_neighbours_walk(opened):
    page = opened.page
    page.keyboard.press("ArrowRight")
    page.wait_for_selector('body[data-shown="0/1/0"]')
    before = page.query_selector("#input canvas").screenshot()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector('body[data-shown="0/2/0"]')
    page.wait_for_timeout(300)
    assert page.query_selector("#input canvas").screenshot() != before
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector('body[data-shown="0/1/0"]')
    page.keyboard.press("/")
    page.keyboard.type("s07")
    page.keyboard.press("Enter")
    page.wait_for_selector('body[data-shown="0/7/0"]')
    near = page.query_selector("#neighbours button").inner_text().split()[0]
    page.query_selector("#neighbours button").click()
    page.wait_for_selector('body:not([data-shown="0/7/0"])')
    assert page.inner_text("#where") == near
    page.fill("#search", "nobody")
    page.press("#search", "Enter")
    page.wait_for_selector("#message:has-text('no brain named nobody')")
    page.focus("#next")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f"#where:not(:has-text('{near}'))")


def test_the_difference_can_be_faded_and_the_model_left_out(opened):
    page = opened.page
    before = page.query_selector("#difference canvas").screenshot()
    page.fill("#overlay", "0")
    page.wait_for_timeout(500)
    assert page.query_selector("#difference canvas").screenshot() != before
    page.select_option("#model", "-1")
    page.wait_for_selector("#made", state="hidden")
    assert not page.query_selector("#difference").is_visible()
    page.select_option("#model", "0")
    page.wait_for_selector("#made", state="visible")


def test_a_page_reloaded_is_where_it_was(opened):
    page = opened.page
    page.wait_for_selector('body[data-shown$="/0"]')
    where = page.inner_text("#where")
    page.reload()
    page.wait_for_selector("body[data-shown]")
    assert page.inner_text("#where") == where
