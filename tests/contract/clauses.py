"""Which clauses of the contract run always, where two classes hold the same back end to them."""

from __future__ import annotations

import types

import pytest


def rarely(cls: type, always: tuple[str, ...]) -> type:
    """Leave the clauses whose numbers are not among ``always`` to the long tests: another class holds them too."""
    for name in dir(cls):
        clause = getattr(cls, name)
        if name.startswith("test_") and name[5:7] not in always:
            parts = (clause.__code__, clause.__globals__, name, clause.__defaults__, clause.__closure__)
            copy = types.FunctionType(*parts)
            copy.__dict__.update(clause.__dict__)
            copy.__annotations__ = clause.__annotations__
            copy.__kwdefaults__ = clause.__kwdefaults__
            setattr(cls, name, pytest.mark.soak(copy))
    return cls
