"""What callers see of a back end's own faults: a service's wrong answer, or an internal error of a local back end."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.errors import InvalidResponse
from cloudtune.redaction.boundary import LOCAL, PROTOCOLS, UNREADABLE, guarded
from cloudtune.registry import BUILT_IN, backend_class, open_backend

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS: dict[str, dict[str, Any]] = {
    "azure_openai": {"endpoint": "https://example.openai.azure.com"},
    "sagemaker": {"compute": "instances"},
}
PLACES = [
    *((name, SETTINGS.get(name, {}), name != "local") for name in BUILT_IN),
    ("sagemaker", {"compute": "local"}, False),
]


def calls_of(name: str) -> list[str]:
    """The methods of the back end that core calls and that may ask a service."""
    own, named = backend_class(name), set()
    for protocol in PROTOCOLS:
        named |= {each for each in vars(protocol) if callable(getattr(own, each, None)) and not each.startswith("_")}
    return sorted(named - LOCAL - {"Options", "Overrides"})


def raising(error: Exception, *, later: bool) -> Any:
    """A method that raises at once, or while its result is read."""

    def fails(*_: Any, **__: Any) -> Any:
        raise error

    def breaks_off(*_: Any, **__: Any) -> Iterator[Any]:
        yield from ()
        raise error

    return breaks_off if later else fails


@pytest.mark.parametrize("error", UNREADABLE)
@pytest.mark.parametrize(("name", "settings", "remote"), PLACES)
def test_only_a_service_can_give_an_invalid_response(
    name: str, settings: dict[str, Any], remote: bool, error: type[Exception]
) -> None:
    assert {"get", "list", "do", "resolve"} <= set(calls_of(name))
    backend = open_backend(name, settings)
    for call, later in product(calls_of(name), (False, True)):
        raised = error("nothing of that name")
        setattr(backend, call, raising(raised, later=later))
        arguments = (None, None) if call == "do" else ()
        with pytest.raises(InvalidResponse if remote else error) as reported:
            list(getattr(guarded(backend), call)(*arguments))
        assert (reported.value.__cause__ if remote else reported.value) is raised
        assert isinstance(reported.value, InvalidResponse) is remote
