"""Sessions of botocore have one loader of service models, also in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.loaders import JSONFileLoader

from cloudtune_providers.aws.clients import Clients, service_models
from cloudtune_providers.aws.options import AwsOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")


def test_a_service_model_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load = JSONFileLoader.load_file

    def recorded(self: JSONFileLoader, path: str) -> Any:
        loaded.append(path)
        return load(self, path)

    service_models.cache_clear()
    monkeypatch.setattr(JSONFileLoader, "load_file", recorded)
    options = AwsOptions(region="eu-west-1")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: Clients(options).client("sts"), range(4)))
    assert len([path for path in loaded if path.endswith("service-2") and "/sts/" in path]) == 1
    assert {client.meta.region_name for client in made} == {"eu-west-1"}
    assert len({id(client.meta.events) for client in made}) == 4


def test_folders_of_models_have_their_own_loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    clients = Clients(AwsOptions(region="eu-west-1"))
    clients.client("sts")
    assert str(tmp_path) in service_models(str(tmp_path)).search_paths
    assert str(tmp_path) not in service_models(None).search_paths
