"""botocore's exceptions become cloudtune's errors: by code, by status, and for requests that were not sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore import exceptions as aws
from botocore.exceptions import ClientError
from botocore.session import get_session

from cloudtune import errors as ours
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.errors import translated
from cloudtune_providers.aws.options import AwsOptions

if TYPE_CHECKING:
    from pathlib import Path


def _answer(code: str, status: int = 400, message: str = "told by the service", **headers: str) -> ClientError:
    document = {"Error": {"Code": code, "Message": message},
                "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}  # fmt: skip
    return ClientError(document, "Operation")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ValidationException", 400, ours.InvalidRequest),
        ("AccessDeniedException", 403, ours.PermissionDenied),
        ("ExpiredTokenException", 400, ours.CredentialsError),
        ("UnrecognizedClientException", 400, ours.CredentialsError),
        ("ResourceNotFoundException", 404, ours.JobNotFound),
        ("NoSuchKey", 404, ours.JobNotFound),
        ("ConflictException", 400, ours.Conflict),
        ("ServiceQuotaExceededException", 400, ours.QuotaExceeded),
        ("ThrottlingException", 429, ours.RateLimited),
        ("SlowDown", 503, ours.RateLimited),
        ("ModelNotReadyException", 429, ours.RateLimited),
        ("InternalServerException", 500, ours.Unavailable),
        ("SomethingNew", 503, ours.Unavailable),
        ("SomethingNew", 418, ours.InvalidRequest),
        ("404", 404, ours.JobNotFound),
        ("403", 403, ours.PermissionDenied),
    ],
)
def test_by_code_and_by_status(code: str, status: int, expected: type[Exception]) -> None:
    error = translated(_answer(code, status), "the job j")
    assert type(error) is expected
    assert "told by the service" in str(error)
    assert str(error).startswith("the job j: ")


def test_sagemakers_way_of_saying_not_found() -> None:
    error = translated(_answer("ValidationException", message="Requested resource not found."), "job")
    assert type(error) is ours.JobNotFound
    error = translated(_answer("ValidationException", message="Requested resource not found."), "create",
                       missing=ours.InvalidRequest)  # fmt: skip
    assert type(error) is ours.InvalidRequest


def test_every_error_of_bedrocks_model_has_a_class_of_its_own() -> None:
    for service in ("bedrock", "bedrock-runtime"):
        model = get_session().get_service_model(service)
        for name in model.operation_names:
            for shape in model.operation_model(name).error_shapes:
                found = type(translated(_answer(shape.metadata.get("error", {}).get("code", shape.name), 418), "x"))
                status = shape.metadata.get("error", {}).get("httpStatusCode", 0)
                if status == 424:  # the model itself failed
                    continue
                assert found is not ours.InvalidRequest or status == 400, shape.name


def test_a_model_that_sleeps_is_told_to_be_asked_again() -> None:
    assert "try again" in str(translated(_answer("ModelNotReadyException", 429), "model m"))


def test_retry_after_is_kept() -> None:
    error = translated(_answer("ThrottlingException", 429, **{"retry-after": "7"}), "x")
    assert isinstance(error, ours.RateLimited)
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    ("raised", "acted"),
    [
        (aws.EndpointConnectionError(endpoint_url="http://x"), False),
        (aws.ConnectTimeoutError(endpoint_url="http://x"), False),
        (aws.ReadTimeoutError(endpoint_url="http://x"), None),
        (aws.ConnectionClosedError(endpoint_url="http://x"), None),
    ],
)
def test_whether_a_request_may_have_been_acted_on(raised: Exception, acted: bool | None) -> None:
    error = translated(raised, "create")
    assert isinstance(error, ours.Unavailable)
    assert error.acted is acted


def test_what_is_wrong_here() -> None:
    assert type(translated(aws.NoCredentialsError(), "x")) is ours.CredentialsError
    assert type(translated(aws.NoRegionError(), "x")) is ours.ConfigError
    assert type(translated(aws.ProfileNotFound(profile="p"), "x")) is ours.ConfigError
    assert type(translated(aws.ParamValidationError(report="bad"), "x")) is ours.InvalidRequest


def test_a_secret_that_the_service_repeats_is_cut_out(keys: None) -> None:
    from tests.unit.providers.aws.conftest import SECRET

    clients = Clients(AwsOptions(endpoint_url="http://127.0.0.1:9"))
    clients.client("sts")
    with pytest.raises(ours.PermissionDenied) as refused, clients.asking("x"):
        raise _answer("AccessDenied", 403, message=f"the secret {SECRET} may not")
    assert SECRET not in str(refused.value)
    assert "***" in str(refused.value)
    assert refused.value.__cause__ is not None


# -- clients -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


def test_no_region_is_said_so(keys: None, no_environment: None) -> None:
    with pytest.raises(ours.ConfigError, match="region"):
        Clients(AwsOptions()).client("bedrock")


def test_the_scope_tells_account_region_and_a_strange_endpoint(clients: Clients) -> None:
    assert clients.scope() == "123456789012/us-east-1"


def test_an_endpoint_from_the_environment_is_part_of_the_scope(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    clients = Clients(AwsOptions())
    clients._account = "123456789012"
    assert clients.scope() == "123456789012/us-east-1@127.0.0.1:9"
    assert clients.is_loopback
    assert clients.client("s3").meta.config.s3["addressing_style"] == "path"


def test_the_sdk_retries_nothing_by_itself(clients: Clients) -> None:
    for service in ("bedrock", "s3", "sts"):
        assert clients.client(service).meta.config.retries["total_max_attempts"] == 1


def test_settings_are_checked_before_anything_is_asked() -> None:
    for wrong in ({"bucket": "s3://rows"}, {"bucket": "Rows"}, {"role_arn": "cloudtune"}, {"prefix": "a b"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AwsOptions.model_validate(wrong)
