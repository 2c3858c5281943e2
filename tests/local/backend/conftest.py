import pytest
from tests.local.backend.submitting import kill_all, scripted_backend

from cloudtune_local.backend import LocalBackend


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "runs"
    yield folder
    kill_all(folder)


@pytest.fixture
def backend(root, tmp_path) -> LocalBackend:
    return scripted_backend(root, tmp_path, grace=0.5)
