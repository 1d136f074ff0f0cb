"""Artifacts that travel over folders, a web server and S3: whole or not at all, resumable, safe from what lies there."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest

from stages.artifacts import remote, seal
from stages.artifacts.refs import Ref
from stages.artifacts.remote import Remote, without_secrets
from stages.artifacts.store import Store
from stages.artifacts.travel import pull, push
from stages.errors import Interrupted, UserError
from stages.observer import Observer
from tests.helpers.cli import run
from tests.helpers.damage import flip, forge

obstore = pytest.importorskip("obstore")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """The URL of a web server that shows `tmp_path/www`."""
    (tmp_path / "www").mkdir(exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def pushed(archived, tmp_path):
    """The data artifact as a push leaves it."""
    return shutil.copytree(archived["data"].path, tmp_path / "www" / "shapes.zarr")


def broken_after(times):
    """Does as `real` does `times` times, then breaks as a cut connection does."""
    turns = count()

    def wrap(real):
        def work(self, name, *rest):
            if next(turns) >= times:
                raise UserError("cut")
            return real(self, name, *rest)

        return work

    return wrap


def names_of(monkeypatch, method):
    """The names of the files that `method` is asked for from now on."""
    asked, real = [], getattr(Remote, method)
    monkeypatch.setattr(Remote, method, lambda self, name, *rest: (asked.append(name), real(self, name, *rest))[1])
    return asked


@pytest.mark.parametrize("kind", ["data", "latents", "run", "report"])
def test_an_artifact_of_each_kind_goes_to_a_folder_and_comes_back_from_a_web_server(
    archived, copied, store, tmp_path, served, kind
):
    place = tmp_path / "www" / "deep" / "it.zarr"
    assert str(push(copied, archived[kind].ref, str(place))) == str(place)
    there = {name: path.read_bytes() for name, path in seal.files(place)}
    push(copied, archived[kind].ref, place.as_uri())  # a second time it finds everything there
    assert there == {name: path.read_bytes() for name, path in seal.files(place)}
    shutil.rmtree(store.root)
    arrived = pull(store, f"{served}/deep/it.zarr", "mine")
    assert arrived.ref == Ref("mine", 1, kind)
    assert {name: path.read_bytes() for name, path in seal.files(arrived.path)} == there
    store.open("mine", thorough=True)
    assert store.leftovers() == []


def test_the_same_artifact_comes_once_and_a_number_can_be_kept(store, pushed):
    assert [str(pull(store, str(pushed), ref).ref) for ref in ("a", "a", "a@v7", "a@v7", "data/a")] == [
        "a@v1", "a@v1", "a@v7", "a@v7", "a@v1",
    ]  # fmt: skip
    forge(pushed, note="another one")
    with pytest.raises(UserError, match="a@v7 is already there"):
        pull(store, str(pushed), "a@v7")
    assert str(pull(store, str(pushed), "a").ref) == "a@v8"
    with pytest.raises(UserError, match="is a data artifact; pull it as b or data/b"):
        pull(store, str(pushed), "run/b")


def test_a_cut_push_shows_nothing_and_goes_on_with_what_is_missing(copied, store, tmp_path, monkeypatch):
    place, whole = tmp_path / "there", len(copied.open("shapes").attributes["manifest"])
    with monkeypatch.context() as patch, pytest.raises(UserError, match="cut"):
        patch.setattr(Remote, "send", broken_after(9)(Remote.send))
        push(copied, "shapes", str(place))
    with pytest.raises(UserError, match=f"There is no {place}/zarr.json"):
        pull(store, str(place), "shapes")
    with pytest.raises(UserError, match="holds something else"):
        push(copied, "bank", str(place))
    asked = names_of(monkeypatch, "send")
    push(copied, "shapes", str(place))
    assert asked[-1] == seal.ROOT and len(asked) == whole - 8 + 2  # and the mark
    assert set(dict(seal.files(place))) == set(copied.open("shapes").attributes["manifest"]) | {seal.ROOT}


def test_a_cut_pull_shows_nothing_and_goes_on_with_what_is_missing(store, pushed, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(UserError, match="cut"):
        patch.setattr(Remote, "fetch", broken_after(6)(Remote.fetch))
        pull(store, str(pushed), "shapes")
    assert store.versions("data", "shapes") == [] and len(store.leftovers()) == 1
    for path in store.leftovers()[0].rglob("*"):
        if path.stat().st_size and path.is_file():
            path.write_bytes(path.read_bytes()[:-1])  # as a kill in the middle of a file leaves it
            break
    asked = names_of(monkeypatch, "fetch")
    artifact = pull(store, str(pushed), "shapes")
    assert len(asked) == len(artifact.attributes["manifest"]) - 6 + 1 and store.leftovers() == []
    store.open("shapes", thorough=True)


class Stopping(Observer):
    def stop_requested(self):
        return True


def test_a_wish_to_stop_is_heard_and_gc_clears_what_was_begun(store, pushed):
    with pytest.raises(Interrupted, match="continues with what is missing"):
        pull(store, str(pushed), "shapes", Stopping())
    assert run(store.root, "artifacts", "list", "--json").stdout == '{"artifacts": []}\n'
    assert "Removed 1 left-over" in run(store.root, "artifacts", "gc").stdout


def test_two_pulls_of_one_artifact_at_once(store, pushed):
    class Second(Observer):
        said = ""

        def start(self, *_):
            try:
                pull(store, str(pushed), "shapes")
            except UserError as error:
                self.said = str(error)

    second = Second()
    pull(store, str(pushed), "shapes", second)
    assert "Another process is writing the same artifact" in second.said
    assert store.versions("data", "shapes") == [1]


def test_nothing_is_pushed_over_something_else_nor_to_a_web_server(copied, tmp_path, served):
    (tmp_path / "www" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"already holds something else; give a URL that holds nothing\."):
        push(copied, "shapes", str(tmp_path / "www"))
    with pytest.raises(UserError, match="can only be pulled from"):
        push(copied, "shapes", served)
    with pytest.raises(UserError, match="holds something else"):
        push(copied, "bank", str(push(copied, "shapes", str(tmp_path / "new"))))
    assert [path.name for path in (tmp_path / "www").iterdir()] == ["notes.txt"]


def test_a_damaged_artifact_is_not_pushed_as_a_whole_one(copied, store, tmp_path):
    artifact = copied.open("shapes")
    flip(artifact.path / "train/images/c/0/0/0/0", 40)
    with pytest.raises(UserError, match="train/images/c/0/0/0/0 is damaged"):
        push(copied, "shapes", str(tmp_path / "there"))
    assert not (tmp_path / "there" / seal.ROOT).exists()


@pytest.mark.parametrize("harm", ["flipped", "cut", "longer", "gone", "root"])
def test_what_is_not_as_sealed_never_appears(store, pushed, served, harm):
    path = pushed / (seal.ROOT if harm == "root" else "train/images/c/0/0/0/0")
    raw = path.read_bytes()
    if harm in ("flipped", "root"):
        flip(path, 40)
    elif harm == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[:-1] if harm == "cut" else raw + b"\0")
    with pytest.raises(UserError, match=r"is damaged|is larger|There is no"):
        pull(store, f"{served}/shapes.zarr", "shapes")
    assert store.versions("data", "shapes") == []


NAMES = [
    "../out",
    "/etc/out",
    "a//b",
    "a/../../out",
    ".",
    "a\\..\\b",
    "a\nb",
    "zarr.json",
    "counts",
    "x" * 256,
    "a/" * 40,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_name_never_leaves_the_folder(store, pushed, name):
    manifest = seal.attributes(pushed)["manifest"]
    forge(pushed, manifest={**manifest, name: [1, "00"]})
    with pytest.raises(UserError, match="lists a file that no artifact can have"):
        pull(store, str(pushed), "shapes")
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("size", "said"),
    [(-1, "no artifact can have"), (True, "no artifact can have"), (10**17, "100,000,000,000 MB are still to come")],
)
def test_foreign_sizes_are_bounded_by_the_disk(store, pushed, size, said):
    manifest = seal.attributes(pushed)["manifest"]
    forge(pushed, manifest={**manifest, "more": [size, "00"]})
    with pytest.raises(UserError, match=said):
        pull(store, str(pushed), "shapes")


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"kind": "virus"}, "no kind of artifact"),
        ({"schema": 99}, "newer version"),
        ({"seed": "x"}, "its seed properly"),
    ],
)
def test_what_this_program_cannot_read_is_refused_before_it_is_fetched(store, pushed, attributes, said):
    forge(pushed, **attributes)
    with pytest.raises(UserError, match=said):
        pull(store, str(pushed), "shapes")
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://me:SECRET@127.0.0.1:9/x?sig=SECRET", r"http://127.0.0.1:9/x/zarr.json can't be reached"),
        ("http://me:SECRET@[::1/x?sig=SECRET", r"http://\.\.\."),
        ("ftp://me:SECRET@host/x", "ftp://host/x is not a URL for artifacts; write s3://"),
        ("s3://?SECRET", "is not a URL for artifacts"),
        ("az://container/x", "needs credentials"),
        ("/no/such/folder", "/no/such/folder does not exist"),
    ],
)
def test_an_error_is_one_sentence_without_secrets(store, monkeypatch, url, said):
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UserError, match=said) as caught:
        pull(store, url, "shapes")
    shown = run(store.root, "artifacts", "pull", url, "shapes", code=2)
    loud = run(store.root, "--verbose", "artifacts", "pull", url, "shapes", code=2)
    assert not any("SECRET" in text for text in (str(caught.value), shown.output, loud.output))
    assert len(str(caught.value)) < 200 and not store.root.exists()


def test_urls_are_shown_without_secrets():
    assert without_secrets("https://me:pw@host:8080/a/b/?sig=1#x") == "https://host:8080/a/b"
    assert without_secrets("s3://bucket/a") == "s3://bucket/a"


def test_without_the_library_a_sentence_says_how_to_install_it(store, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(UserError, match=r"pip install 'fedktl\[remote\]'"):
        pull(store, "s3://bucket/x", "shapes")


def test_a_server_that_goes_away_in_the_middle(store, pushed, served, monkeypatch):
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    turns = count()

    def vanish(self):
        if next(turns) > 5:
            self.connection.close()
            raise ConnectionResetError
        return SimpleHTTPRequestHandler.do_GET(self)

    monkeypatch.setattr(Quiet, "do_GET", vanish)
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *_: None)
    with pytest.raises(UserError, match=r"can't be reached; the same command continues"):
        pull(store, f"{served}/shapes.zarr", "shapes")
    monkeypatch.setattr(Quiet, "do_GET", SimpleHTTPRequestHandler.do_GET)
    assert str(pull(store, f"{served}/shapes.zarr", "shapes").ref) == "shapes@v1"


def test_the_program_pushes_and_pulls(copied, tmp_path):
    place = tmp_path / "there"
    assert run(copied.root, "artifacts", "push", "report", str(place)).stdout.strip() == str(place)
    pulled = run(tmp_path / "other", "artifacts", "pull", str(place), "mine")
    assert pulled.stdout == "report/mine@v1\n"
    assert (tmp_path / "other" / "reports" / "mine" / "v1.html").exists()  # the page that people open


@pytest.mark.slow
def test_a_real_s3_server(copied, tmp_path, monkeypatch):
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "ACCESS_KEY_ID": "AKIASECRET", "SECRET_ACCESS_KEY": "SECRET", "REGION": "us-east-1",
        "ENDPOINT": f"http://{host}:{port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(UserError, match="without TLS; set AWS_ALLOW_HTTP=true"):
        push(copied, "shapes", "s3://bucket/shapes")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(UserError, match="s3://bucket/shapes does not exist"):
        push(copied, "shapes", "s3://bucket/shapes")
    obstore.put(Remote(f"http://{host}:{port}")._store, "bucket", b"")  # how S3 makes a bucket
    with monkeypatch.context() as patch, pytest.raises(UserError, match="cut"):
        patch.setattr(Remote, "send", broken_after(5)(Remote.send))
        push(copied, "shapes", "s3://bucket/shapes")
    push(copied, "shapes", "s3://bucket/shapes")
    assert {name for name, _ in Remote("s3://bucket/shapes").listed()} == set(
        dict(seal.files(copied.open("shapes").path))
    )
    pull(Store(tmp_path / "other"), "s3://bucket/shapes", "mine")
    Store(tmp_path / "other").open("mine", thorough=True)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    with pytest.raises(UserError, match="needs credentials"):
        pull(Store(tmp_path / "third"), "s3://bucket/shapes", "mine")
    server.stop()
