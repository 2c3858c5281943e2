"""Files that a user, a spec or a download names are opened in one way, which waits for no FIFO and reads no device."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest
from tests.syntax import nodes

from cloudtune_trainer.model_folder import check_model_folder
from cloudtune_trainer.problems import TrainingProblem

REPOSITORY = Path(__file__).parents[2]
MODULES = [
    path
    for package in (
        "src/cloudtune",
        "providers",
        "local_backend/cloudtune_local",
        "local_backend/cloudtune_trainer/submit",
        "local_backend/cloudtune_trainer/worker",
    )
    for path in sorted((REPOSITORY / package).rglob("*.py"))
]
READ_THEIR_OWN = {
    "src/cloudtune/config/trust.py": "opens without waiting, and checks type, owner and mode",
    "src/cloudtune/data/checks/check_cache.py": "the cache's own files and this package's code",
    "src/cloudtune/data/read/columnar_worker.py": "its own pipes",
    "src/cloudtune/document/document.py": "opens without waiting: a pipe that a shell makes is allowed",
    "src/cloudtune/files/private_files.py": "copies and writes of files that cloudtune made",
    "src/cloudtune/files/regular_file.py": "it is the way",
    "src/cloudtune/install_command.py": "the metadata of this distribution",
    "src/cloudtune/processes/identity.py": "files of /proc",
    "src/cloudtune/report/page.py": "files of this package",
    "src/cloudtune/testing/": "files of the tests",
    "providers/cloudtune_providers/aws/parts.py": "rows in the spool, or files that a plan has read already",
    "providers/cloudtune_providers/aws/s3.py": "rows in the spool",
    "providers/cloudtune_providers/azure_openai/ml_workspace/storage.py": "rows in the spool",
    "providers/cloudtune_providers/openai_dialect/files.py": "rows in the spool",
    "providers/cloudtune_providers/run_folders/access.py": "this package's code",
    "providers/cloudtune_providers/run_folders/jobs.py": "rows in the spool, and files of a model that a plan has read",
    "providers/cloudtune_providers/sagemaker/local_jobs.py": "folders of its own jobs",
    "providers/cloudtune_providers/sagemaker/storage.py": "its own store in place of S3",
    "providers/cloudtune_providers/sagemaker/training.py": "rows in the spool",
    "local_backend/cloudtune_trainer/worker/": "run folders and files of /proc",
    "local_backend/cloudtune_trainer/submit/bundle.py": "this package's code",
    "local_backend/cloudtune_trainer/submit/container.py": "folders of its own jobs",
    "local_backend/cloudtune_trainer/submit/container_service.py": "folders of its own jobs",
    "local_backend/cloudtune_trainer/submit/hub.py": "the hub's cache",
}


def _reads(path: Path) -> list[str]:
    found = []
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        if name in {"read_text", "read_bytes"} or (name in {"open", "fdopen"} and {"r", "rb"} & set(modes)):
            found.append(f"{path.name}:{node.lineno} {name}")
    return found


def test_no_module_opens_files_in_another_way() -> None:
    found = {path.relative_to(REPOSITORY).as_posix(): _reads(path) for path in MODULES}
    assert {
        where: calls
        for where, calls in found.items()
        if calls and not any(where.startswith(known) for known in READ_THEIR_OWN)
    } == {}


def test_every_exception_still_opens_files() -> None:
    reading = [path.relative_to(REPOSITORY).as_posix() for path in MODULES if _reads(path)]
    assert [known for known in READ_THEIR_OWN if not any(where.startswith(known) for where in reading)] == []


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "sub/anything"])
def test_a_model_folder_with_a_fifo_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    check_model_folder(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(TrainingProblem, match="not a regular file"):
        check_model_folder(tmp_path)


@pytest.mark.parametrize("kind", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("name", ["../other.safetensors", "/dev/zero", "a/../../b", "a\0b", "", None, "..\\b"])
def test_an_index_of_weights_stays_in_its_folder(kind: str, name: object, tmp_path: Path) -> None:
    (tmp_path / kind).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    check_model_folder(tmp_path)
    (tmp_path / kind).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}))
    with pytest.raises(TrainingProblem, match="outside the folder"):
        check_model_folder(tmp_path)
