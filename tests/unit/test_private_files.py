"""Files that cloudtune keeps are for the user alone, and no module writes one in another way."""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.syntax import nodes
from tests.unit.test_conventions import MODULES, REPOSITORY

from cloudtune.clock import SystemClock
from cloudtune.files import private_files
from cloudtune.ledger.ledger import Ledger
from cloudtune.plan import DataReport, Plan, Resolved
from cloudtune_emulator.store import Store
from cloudtune_trainer import private_files as of_trainer

KEPT_BY_CALLER = {
    "src/cloudtune/testing/": "the contract suite writes into the test's own folder",
    "src/cloudtune/cli/init.py": "writes a spec and settings into the user's project, under the user's umask",
    "src/cloudtune/cli/move.py": "writes a spec at the path that the user names, under the user's umask",
    "src/cloudtune/cli/data_profile.py": "writes the page at the path that the user names",
    "src/cloudtune/cli/data_preview.py": "writes the page at the path that the user names",
    "src/cloudtune/data/report.py": "writes beside the rows, at the path that the user names",
    "src/cloudtune/data/encoding.py": "copies a hash, not a file",
    "src/cloudtune/data/write/output_file.py": "creates the folder of an output file that the user names",
    "providers/cloudtune_providers/aws/s3.py": "writes below a private folder, or at the path that the user names",
    "providers/cloudtune_providers/sagemaker/artifacts.py": "writes into a folder of mode 0700",
    "providers/cloudtune_providers/sagemaker/storage.py": "exports to the path that the user names",
    "providers/cloudtune_providers/jumpstart/artifact.py": "exports to the path that the user names",
    "local_backend/cloudtune_trainer/submit/container.py": "runs in the service's process, whose umask is 0077",
    "local_backend/cloudtune_trainer/submit/container_service.py": "its process has the umask 0077",
    "local_backend/cloudtune_trainer/": "runs in the trainer's process, whose umask is 0077",
    "local_backend/cloudtune_emulator/": "writes below the store's folder (0700), in a process with umask 0077",
}
"""File or folder -> why it may create files without `private_files`."""
CREATES = {"mkdir", "makedirs", "write_text", "write_bytes", "touch", "copyfile", "copy", "copy2", "copytree"}


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("rule", [private_files, of_trainer], ids=["core", "trainer"])
def test_folders_and_files_are_private_whatever_the_umask(rule, tmp_path: Path) -> None:
    folder = rule.private_folder(tmp_path / "a" / "b")
    with open(folder / "file", "wb", opener=rule.opener) as file:
        file.write(b"rows")
    (folder / "file").chmod(0o644)
    rule.copy_private(folder / "file", folder / "copy")
    assert [mode(path) for path in (folder.parent, folder, folder / "copy")] == [0o700, 0o700, 0o600]


def test_an_older_folder_is_narrowed_and_a_shared_one_is_not(tmp_path: Path) -> None:
    wide, shared = tmp_path / "wide", tmp_path / "shared"
    wide.mkdir(0o755)
    shared.mkdir()
    shared.chmod(0o1777)
    for folder in (wide, shared):
        private_files.private_folder(folder)
    assert (mode(wide), mode(shared)) == (0o700, 0o1777)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("planted", ["folder", "link"])
def test_a_folder_of_another_user_is_refused(planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "theirs"
    there.mkdir()
    os.chown(there, 4321, 4321)
    if planted == "link":
        (tmp_path / "mine").mkdir()
        os.chown(tmp_path / "mine", 1234, 1234)
        there.rmdir()
        there.symlink_to(tmp_path / "mine")
        os.lchown(there, 4321, 4321)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    with pytest.raises(PermissionError, match="another user"):
        private_files.private_folder(there)


def test_a_ledger_made_before_is_narrowed(tmp_path: Path) -> None:
    plan = Plan(
        name="n", backend="toy", scope="acct", key="k", attempt=1, token="k-1", spec={"model": "m"}, steps=(),
        data=DataReport(splits={}, fingerprint="f"), resolved=Resolved(scope="acct"),
    )  # fmt: skip
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", SystemClock())
    ledger.begin(plan)
    for path in tmp_path.iterdir():
        path.chmod(0o666)
    ledger.begin(plan)
    assert {path.name: oct(mode(path)) for path in tmp_path.iterdir() if mode(path) != 0o600} == {}


def test_an_emulators_store_is_private(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.add("file", "openai", {"id": "file-1"})
    with open(__file__, "rb") as stream:
        store.write("file-1", stream)
    wide = {str(path): oct(mode(path)) for path in (tmp_path / "store").rglob("*") if mode(path) & 0o077}
    store.close()
    assert wide == {}
    assert mode(tmp_path / "store") == 0o700


def _creating(path: Path) -> list[str]:
    found = []
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg for keyword in node.keywords}
        words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        writes = name == "open" and any(set(word) & set("wax") and len(word) <= 4 for word in words)
        if (name in CREATES and "mode" not in given) or (writes and "opener" not in given):
            found.append(f"{path.name}:{node.lineno} {name}")
    return found


def _is_kept_by_caller(where: str) -> bool:
    in_back_ends = "local_backend/cloudtune_trainer/submit/"
    known = [known for known in KEPT_BY_CALLER if where.startswith(known)]
    return any(one.startswith(in_back_ends) for one in known) if where.startswith(in_back_ends) else bool(known)


def test_no_module_creates_files_in_another_way() -> None:
    found = {}
    for path in MODULES:
        where = path.relative_to(REPOSITORY).as_posix()
        if path.name != "private_files.py" and not _is_kept_by_caller(where):
            found[where] = _creating(path)
    assert {where: calls for where, calls in found.items() if calls} == {}


def test_every_exception_still_creates_files() -> None:
    idle = [
        known
        for known in KEPT_BY_CALLER
        if not any(_creating(path) for path in MODULES if path.relative_to(REPOSITORY).as_posix().startswith(known))
        and "mkstemp" not in KEPT_BY_CALLER[known]
    ]
    assert idle == []
