"""Inspects models that are already in AWS: which Bedrock call imports them, and whether it would succeed.

CreateModelImportJob imports complete open-weight models under an S3 prefix. CreateCustomModel imports SageMaker's Nova
models, whose weights stay in AWS's buckets
(docs.aws.amazon.com/bedrock/latest/APIReference/API_CreateCustomModel.html, seen 2026-11-21).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune.errors import InputError, JobNotFound, Problem
from cloudtune.optional import Elsewhere, InPlace
from cloudtune_providers.aws.s3 import Objects
from cloudtune_providers.bedrock import import_rules
from cloudtune_providers.bedrock.calls import split_url
from cloudtune_providers.bedrock.model_files import PlacedFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.state import TunedModel
    from cloudtune_providers.aws.clients import Clients

IMPORT, REGISTER = "import", "register"
ESCROW = "customer-escrow-"
"""The name prefix of AWS's buckets with an account's tuned Nova models: to register one, the role must be able to
read it (IAM policies of github.com/aws/nova-forge-sdk and its predecessor, seen 2026-11-21)."""
# docs.aws.amazon.com/bedrock/latest/APIReference/API_S3DataSource.html, seen 2026-11-21.
_URL = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?")
_PACKAGE = re.compile(
    r"arn:aws[a-z-]*:sagemaker:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):model-package/(?P<name>\S+)"
)
_BASES = {
    "nova-textgeneration-micro": "amazon.nova-micro-v1:0", "nova-textgeneration-lite": "amazon.nova-lite-v1:0",
    "nova-textgeneration-pro": "amazon.nova-pro-v1:0", "nova-textgeneration-lite-v2": "amazon.nova-2-lite-v1:0",
}  # fmt: skip
"""SageMaker's names of Nova (github.com/aws/sagemaker-python-sdk, its tests, seen 2026-11-21) -> Bedrock's."""
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
MERGED = "checkpoints/hf_merged/"
"""The path of merged weights below a package's prefix, written by SageMaker's serverless trainers
(github.com/aws/sagemaker-python-sdk, sagemaker-serve, bedrock_model_builder.py, seen 2026-11-21)."""


class Locating:
    """Reads the buckets and packages of one account and region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def locate(self, source: str | TunedModel) -> InPlace | Elsewhere:
        """See `cloudtune.backend.InPlaceImporter`."""
        return self._address(source) if isinstance(source, str) else self._left(source)

    def _address(self, address: str) -> InPlace | Elsewhere:
        if package := _PACKAGE.fullmatch(address):
            there, here = f"{package['account']}/{package['region']}", self._clients.scope().partition("@")[0]
            if there != here:
                return _apart(address, there, here)
            return self._package(address, package["name"])
        if not _URL.fullmatch(address):
            raise InputError([Problem(
                code="address", file=address, message="Bedrock cannot import from this address",
                fix="use s3://BUCKET/FOLDER/, the ARN of a SageMaker model package, a local folder, or a job",
            )])  # fmt: skip
        bucket, key = split_url(address)
        if bucket.startswith(ESCROW):
            return _registered(address, {"s3": address}, key.rstrip("/").rpartition("/")[2] or bucket)
        return self._folder(address, key.rstrip("/").rpartition("/")[2] or bucket)

    def _left(self, model: TunedModel) -> InPlace | Elsewhere:
        """The result of another back end's job."""
        package = model.raw.get("package")
        if not package and not (model.uri or "").startswith("s3://"):
            return Elsewhere(reason=f"its files are at {model.uri or 'no address'}, but Bedrock reads S3 only",
                             fix="download them to a local folder, and import that")  # fmt: skip
        if model.scope != (here := self._clients.scope()):
            return _apart(model.id, model.scope, here)
        if package and (_is_nova(model.base) or not model.uri):
            facts = {"package": package, "base": model.base, "adapter": model.adapter}
            return _registered(str(package), facts, model.id)
        return self._folder(str(model.uri), model.id)

    # -- packages --------------------------------------------------------------------------------------------------

    def _package(self, arn: str, name: str) -> InPlace | Elsewhere:
        try:
            with self._clients.asking(f"model package {arn}"):
                response = self._clients.client("sagemaker").describe_model_package(ModelPackageName=arn)
        except JobNotFound as error:
            problem = Problem(code="no_package", file=arn, message="no such model package")
            raise InputError([problem]) from error
        container = ((response.get("InferenceSpecification") or {}).get("Containers") or [{}])[0]
        known = container.get("BaseModel") or {}
        base = str(known.get("HubContentName") or known.get("RecipeName") or "")
        called = name.replace("/", "-")
        url = ((container.get("ModelDataSource") or {}).get("S3DataSource") or {}).get("S3Uri")
        url = url or container.get("ModelDataUrl")
        if _is_nova(base) or not url:  # the files of those are not accessible
            return _registered(arn, {"package": arn, "base": base}, called)
        return self._folder(str(url), called)

    # -- folders ---------------------------------------------------------------------------------------------------

    def _folder(self, url: str, called: str) -> InPlace | Elsewhere:
        if url.endswith(_ARCHIVES):
            reason = f"{url} is an archive, but Bedrock imports unpacked files"
            return Elsewhere(reason=reason, fix="unpack it to a local or S3 folder, and import that")
        bucket, key = split_url(url)
        objects, prefix = Objects(self._clients, bucket), f"{key.rstrip('/')}/" if key else ""
        listed = objects.list(prefix)
        if not listed:
            message = "no files there, or no permission to read them"
            raise InputError([Problem(code="no_files", file=url, message=message, fix="use a model folder")])
        lies = objects.region()
        if lies and lies != self._clients.region:
            return _apart(url, lies, self._clients.region)
        files = _model_of(objects, prefix, listed)
        if import_rules.is_adapter(files):
            reason = f"{files.where} contains an adapter, but Bedrock imports complete models only"
            return Elsewhere(reason=reason, fix="merge it into its base model, and import that")
        config = import_rules.config_of(files) or {}
        if lost := import_rules.misread(config):
            reason = f"{files.place('config.json')} does not set {', '.join(lost)} under the names that transformers "
            return Elsewhere(reason=f"{reason}{import_rules.TRANSFORMERS} reads",
                             fix="add these names to it, or use a local folder")  # fmt: skip
        return InPlace(
            at=files.where, name=called, identity={"at": files.where, "files": files.versions()},
            facts={"call": IMPORT, "bytes": sum(files.sizes.values()), "files": len(files.sizes)},
            problems=tuple(import_rules.problems(files)),
        )  # fmt: skip


def _model_of(objects: Objects, prefix: str, listed: Any) -> PlacedFiles:
    """The files of the whole model below a prefix: those at its top, else those that a trainer merged below it."""
    names = {str(entry["Key"])[len(prefix) :] for entry in listed}
    if "config.json" not in names and f"{MERGED}config.json" in names:
        prefix += MERGED
    return PlacedFiles(objects, prefix, listed)


def _registered(at: str, facts: Mapping[str, Any], called: str) -> InPlace:
    known = {name: value for name, value in facts.items() if value}
    if "base" in known:
        known["base"] = _BASES.get(known["base"], known["base"])
    return InPlace(at=at, name=called, identity={"at": at}, facts={"call": REGISTER} | known)


def _apart(what: str, there: str, here: str) -> Elsewhere:
    fix = "copy it there, or set the account and region it is in"
    return Elsewhere(reason=f"{what} is in {there}, but the settings select {here}", fix=fix)


def _is_nova(base: str) -> bool:
    return "nova" in base.lower()
