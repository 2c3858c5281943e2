"""Finding the base model: folders, GGUF files, descriptions, the hub and its cache; and what if it is not there."""

import http.server
import json
import math
import re
import socket
import struct
import threading

import pytest

from cloudtune.errors import SpecError
from cloudtune_trainer.submit.model_facts import find_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    for name in ("HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def safetensors(shapes):
    head, place = {}, 0
    for name, shape in shapes.items():
        end = place + 4 * math.prod(shape)
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps({**head, "__metadata__": {"format": "pt"}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(place)


def model_folder(folder, *, config=None, template="chat"):
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "max_position_embeddings": 512, "vocab_size": 300} if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(
        safetensors({"model.layers.0.mlp.up.weight": [3, 4], "model.norm.weight": [5]})
    )
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template} if template else {}))
    return folder


def gguf_file(path, pairs):
    def text(value):
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    def value(item):
        if isinstance(item, str):
            return struct.pack("<I", 8) + text(item)
        if isinstance(item, list):
            body = b"".join(text(part) for part in item)
            return struct.pack("<IIQ", 9, 8, len(item)) + body
        return struct.pack("<II", 4, item)

    body = b"".join(text(key) + value(item) for key, item in pairs.items())
    tensor = text("w") + struct.pack("<I2QIQ", 2, 6, 7, 0, 0)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + body + tensor)
    return path


def refusal(name, **options):
    with pytest.raises(SpecError) as refused:
        find_model(str(name), **options)
    (problem,) = refused.value.problems
    assert (problem.code, problem.field) == ("unknown_model", "model")
    assert problem.fix
    return problem.message


def test_a_folder(tmp_path):
    folder = model_folder(tmp_path / "m")
    found = find_model(str(folder))
    assert (found.source, found.path) == ("folder", str(folder))
    assert (found.context_length, found.vocab_size, found.chat_template, found.parameters) == (512, 300, True, 17)
    assert found.modules == ["mlp.up"]


def test_the_fingerprint_follows_the_content(tmp_path):
    folder = model_folder(tmp_path / "m")
    before = find_model(str(folder)).fingerprint
    (folder / "model.safetensors").touch()
    assert find_model(str(folder)).fingerprint == before
    assert find_model(str(model_folder(tmp_path / "copy"))).fingerprint == before
    (folder / "tokenizer_config.json").write_text('{"chat_template": "other"}')
    assert find_model(str(folder)).fingerprint != before


def test_large_files_are_sampled_but_a_change_of_size_or_ends_is_seen(tmp_path):
    folder = model_folder(tmp_path / "m")
    weights = folder / "model.safetensors"
    content = safetensors({"w": [9 << 18]})
    weights.write_bytes(content)
    before = find_model(str(folder)).fingerprint
    weights.write_bytes(content[:-1] + b"x")
    assert find_model(str(folder)).fingerprint != before


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    model_folder(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert find_model("m").path == find_model("./m").path == str(tmp_path / "m")


def test_a_template_in_its_own_file_and_a_nested_config(tmp_path):
    config = {"text_config": {"max_position_embeddings": 99, "vocab_size": 5}}
    folder = model_folder(tmp_path / "m", template=None, config=config)
    assert find_model(str(folder)).chat_template is False
    assert find_model(str(folder)).context_length == 99
    (folder / "chat_template.jinja").write_text("x")
    assert find_model(str(folder)).chat_template is True


def test_a_gguf_file_and_a_folder_with_one(tmp_path):
    pairs = {
        "general.architecture": "llama", "llama.context_length": 2048, "tokenizer.ggml.tokens": ["a", "b", "c"],
        "tokenizer.chat_template": "x",
    }  # fmt: skip
    (tmp_path / "g").mkdir()
    path = gguf_file(tmp_path / "g" / "m.gguf", pairs)
    found = find_model(str(path))
    assert (found.source, found.context_length, found.vocab_size, found.parameters) == ("gguf", 2048, 3, 42)
    assert found.chat_template is True
    assert find_model(str(tmp_path / "g")) == found


@pytest.mark.parametrize("cut", [0, 3, 10, 30, 60])
def test_a_broken_gguf_file(tmp_path, cut):
    path = gguf_file(tmp_path / "m.gguf", {"general.architecture": "llama", "x": ["y"]})
    path.write_bytes(path.read_bytes()[:cut])
    assert "GGUF" in refusal(path)


def test_a_description(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"model": {"max_position_embeddings": 77}, "tokenizer": {"vocab_size": 300}}')
    found = find_model(str(path))
    assert (found.source, found.context_length, found.chat_template) == ("config", 77, True)
    path.write_text('{"modell": {}}')
    assert "modell" in refusal(path)


def test_what_is_no_model(tmp_path):
    assert "no such file or folder" in refusal(tmp_path / "nothing")
    assert "no such file or folder" in refusal("./nothing")
    assert "no such file or folder" in refusal("nothing.gguf")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refusal(tmp_path / "empty")
    (tmp_path / "file.txt").write_text("")
    assert "is not a model" in refusal(tmp_path / "file.txt")
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_text("{")
    assert "not valid JSON" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "not a JSON object" in refusal(folder)


def test_parts_that_are_missing_or_damaged(tmp_path):
    folder = model_folder(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    assert "no weights" in refusal(folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    assert "safetensors" in refusal(folder)
    folder = model_folder(tmp_path / "b")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "no tokenizer" in refusal(folder)
    adapter = tmp_path / "c"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert "adapter" in refusal(adapter)


def test_the_hubs_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    model = cache / "models--org--name"
    model_folder(model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    found = find_model("org/name")
    assert (found.source, found.path, found.revision, found.fingerprint) == ("hub", "org/name", COMMIT, COMMIT)
    assert found.context_length == 512
    assert find_model("org/name", revision=COMMIT) == found
    assert "HF_HUB_OFFLINE" in refusal("org/name", revision="other")
    assert "HF_HUB_OFFLINE" in refusal("org/other")


@pytest.fixture
def hub(monkeypatch):
    """A model hub on loopback, with one model, one private one, and one that breaks."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            routes = {
                "/api/models/org/name/revision/main": (200, {"sha": COMMIT}),
                f"/org/name/resolve/{COMMIT}/config.json": (200, {"max_position_embeddings": 64}),
                "/api/models/org/private/revision/main": (401, {}),
                "/api/models/org/broken/revision/main": (500, {}),
                "/api/models/org/odd/revision/main": (200, []),
            }
            code, body = routes.get(self.path, (404, {}))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = find_model("org/name")
    assert (found.source, found.path, found.revision, found.context_length) == ("hub", "org/name", COMMIT, 64)
    assert {token for _, token in hub} == {"Bearer hf_secret"}
    assert "hf_secret" not in repr(found)


def test_the_hub_says_no(hub):
    assert "no such model" in refusal("org/nothing")
    assert "denies access to it" in refusal("org/private")
    assert "500" in refusal("org/broken")
    assert "unexpected response" in refusal("org/odd")


HEAD = b"HTTP/1.1 200 OK\r\n"
REPLIES = {
    "nothing": b"", "another protocol": b"SSH-2.0-OpenSSH\r\n", "a page": HEAD + b"\r\n<html>",
    "a chunk that ends early": HEAD + b"Transfer-Encoding: chunked\r\n\r\n100\r\n{",
    "a chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{",
    "a body that ends early": HEAD + b"Content-Length: 100\r\n\r\n{", "not UTF-8": HEAD + b"\r\n\xff\xfe{}",
    "many headers": HEAD + b"A: b\r\n" * 200 + b"\r\n{}",
    "a long header": HEAD + b"A: " + b"x" * 70_000 + b"\r\n\r\n{}",
    "deep JSON": HEAD + b"\r\n" + b"[" * 100_000, "a long number": HEAD + b'\r\n{"sha": ' + b"9" * 5000 + b"}",
    "a commit that is a path": HEAD + b'\r\n{"sha": "../../other/model"}',
    "a commit with control characters": HEAD + b'\r\n{"sha": "\\u001b[31m a"}',
    "a redirect to a file": b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_reply_that_is_not_the_hubs_is_one_clear_error(monkeypatch, reply):
    def answer(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        assert re.search("cannot connect to the hub|hub returned|respond like a model hub", refusal("org/name"))
        thread.join()


def test_a_revision_is_one_part_of_the_hubs_path(hub):
    assert "no such model" in refusal("org/other", revision="refs/pr/1")
    assert hub[-1][0] == "/api/models/org/other/revision/refs%2Fpr%2F1"


def test_the_hub_cannot_be_reached(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot connect to the hub" in refusal("org/name")


def test_a_path_has_no_revision(tmp_path):
    assert "revision" in refusal(model_folder(tmp_path / "m"), revision="main")
