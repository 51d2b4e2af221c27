"""Downloads through huggingface_hub, from a hub on this machine that speaks its protocol."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lipsync_core.errors import WeightsError
from lipsync_core.models import known, manifest
from lipsync_core.models.manifest import HubFile, KnownModel
from lipsync_core.models.store import MODELS_VARIABLE
from lipsync_core.paths import CACHE_VARIABLE

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub (extra torch)")

CONTENT = {"one.bin": bytes(range(256)) * 500, "deep/two.onnx": b"a second file"}


def entry(path: str, **changes: object) -> HubFile:
    facts = {
        "file": path,
        "repository": "someone/toy",
        "path": path,
        "revision": "main",
        "size": len(CONTENT[path]),
        "sha256": hashlib.sha256(CONTENT[path]).hexdigest(),
    }
    return HubFile.model_validate(facts | changes)


class Hub:
    """Serves CONTENT; `asked` holds (method, path, range) of each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.content = dict(CONTENT)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.command, self.path, wanted))
            body = state.content.get(self.path.removeprefix("/someone/toy/resolve/main/"))
            if body is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    use(monkeypatch, entry("one.bin"), entry("deep/two.onnx"))
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, *files: HubFile) -> None:
    model = KnownModel(name="toy", title="A toy", licence="CC0-1.0", files=files)
    monkeypatch.setattr(manifest, "models", lambda: {"toy": model})


def left(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def partial_of(root: Path, name: str) -> Path:
    etag = hashlib.sha256(CONTENT[name]).hexdigest()
    return root / f".{name}.{hashlib.sha256(etag.encode()).hexdigest()[:16]}.partial"


def test_a_pull_brings_every_file_once(hub: Hub) -> None:
    root = known.pull("toy")
    assert left(root) == CONTENT
    assert known.folder_of("toy") == root
    before = len(hub.asked)
    assert known.pull("toy") == root
    assert len(hub.asked) == before


def test_an_interrupted_download_goes_on_where_it_stopped(hub: Hub) -> None:
    root = known.cached_folder(manifest.find_model("toy"))
    root.mkdir(parents=True)
    partial_of(root, "one.bin").write_bytes(CONTENT["one.bin"][:1000])
    (root / ".one.bin.0123456789abcdef.partial").write_bytes(b"of another revision")
    assert left(known.pull("toy")) == CONTENT
    assert [wanted for method, path, wanted in hub.asked if method == "GET" and "one.bin" in path] == ["bytes=1000-"]


def test_what_came_before_the_interruption_is_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(url: str, out: object, **rest: object) -> None:
        out.write(CONTENT["one.bin"][:777])  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lipsync_core.models.hub.http_get", broken)
        with pytest.raises(KeyboardInterrupt):
            known.pull("toy")
    root = known.cached_folder(manifest.find_model("toy"))
    assert not (root / "one.bin").exists()
    assert partial_of(root, "one.bin").stat().st_size == 777
    assert left(known.pull("toy")) == CONTENT
    assert ("GET", "/someone/toy/resolve/main/one.bin", "bytes=777-") in hub.asked


def test_a_damaged_file_is_fetched_again(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    root = known.pull("toy")
    (root / "one.bin").write_bytes(bytes(len(CONTENT["one.bin"])))
    assert dict(known.verify("toy")) == {"one.bin": known.Verdict.DAMAGED, "deep/two.onnx": known.Verdict.GOOD}
    known.pull("toy")
    assert left(root) == CONTENT
    assert "damaged" in caplog.text


def test_other_content_of_the_same_size_is_refused_and_deleted(hub: Hub) -> None:
    hub.content["one.bin"] = bytes(len(CONTENT["one.bin"]))
    with pytest.raises(WeightsError, match="another SHA-256"):
        known.pull("toy")
    assert left(known.cached_folder(manifest.find_model("toy"))) == {}


def test_another_size_is_refused_before_anything_is_fetched(hub: Hub) -> None:
    hub.content["one.bin"] += b"x"
    with pytest.raises(WeightsError, match="128001 bytes where 128000 are expected"):
        known.pull("toy")
    assert [method for method, _, _ in hub.asked] == ["HEAD"]


def test_a_file_of_unknown_size_and_hash_is_brought_with_a_warning(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, entry("one.bin", size=None, sha256=None))
    assert left(known.pull("toy")) == {"one.bin": CONTENT["one.bin"]}
    assert "no known SHA-256" in caplog.text
    assert dict(known.verify("toy")) == {"one.bin": known.Verdict.UNKNOWN}


def test_a_huge_file_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, entry("one.bin", size=None, sha256=None))
    monkeypatch.setattr("lipsync_core.models.hub.SIZE_LIMIT_BYTES", 1000)
    with pytest.raises(WeightsError, match="is larger than"):
        known.pull("toy")


def test_a_full_disk_is_told_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("lipsync_core.models.hub.shutil.disk_usage", lambda path: Usage)
    with pytest.raises(WeightsError, match=r"0\.0 GB left"):
        known.pull("toy")


def test_a_file_the_hub_does_not_have_is_one_error_with_the_cure(hub: Hub) -> None:
    del hub.content["deep/two.onnx"]
    with pytest.raises(WeightsError, match=r"deep/two\.onnx cannot be downloaded from http") as caught:
        known.pull("toy")
    assert "lipsync models pull toy" in caught.value.cure
    assert "\n" not in str(caught.value)


def test_offline_is_one_error_naming_the_command_and_the_place(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        known.pull("toy")
    assert "lipsync models pull toy" in caught.value.cure
    assert str(known.cached_folder(manifest.find_model("toy"))) in caught.value.cure
    assert hub.asked == []
