"""Plugins of providers and other packages, by name: formats, kinds of rows, tokenizers, remote stores.

The core knows the names of this distribution's providers from the tables below, so that they work in a checkout as well
as in a wheel. Other distributions add theirs with an entry point in the group of a table, such as::

    [project.entry-points."cloudtune.formats"]
    acme-chat = "acme.rows:CHAT"

Nothing is imported before it is used. A name of this distribution wins over the same name of another one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys
from contextlib import contextmanager
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cloudtune.errors import BackendNotInstalled, CloudtuneError
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.metadata import EntryPoints

T = TypeVar("T")
_log = logging.getLogger(__name__)


def entry_points(group: str) -> EntryPoints:
    """The entry points of that group. All distributions are read once in a process, not once for each group."""
    found: EntryPoints = _all_entry_points(tuple(sys.path)).select(group=group)
    return found


@lru_cache(maxsize=1)
def _all_entry_points(path: tuple[str, ...]) -> Any:  # the class differs between versions of Python
    """Those of the distributions in ``sys.path``."""
    return importlib.metadata.entry_points()


class Plugin(NamedTuple):
    """Where one named object comes from."""

    target: str
    """``module:attribute``."""
    install: str
    """The package to install if the module cannot be imported; of this distribution, the extra."""
    is_built_in: bool = True

    @property
    def command(self) -> str:
        """What installs it."""
        return install_command(self.install) if self.is_built_in else f'pip install "{self.install}"'


class PluginTable:
    """The plugins of one entry-point group."""

    def __init__(self, group: str, built_in: Mapping[str, str], extra: str = "all") -> None:
        self.group = group
        self._built_in = {name: Plugin(target, extra) for name, target in built_in.items()}

    @cached_property
    def plugins(self) -> dict[str, Plugin]:
        """All by name: first those of this distribution, then the others', sorted."""
        others = {
            entry.name: Plugin(entry.value, entry.dist.name if entry.dist else "the package", is_built_in=False)
            for entry in sorted(entry_points(self.group), key=lambda entry: entry.name)
        }
        return self._built_in | {name: plugin for name, plugin in others.items() if name not in self._built_in}

    def load(self, name: str, expected: type[T]) -> T:
        """Import the object of that name. Raises KeyError for an unknown name, BackendNotInstalled."""
        module, _, attribute = self._plugin(name).target.partition(":")
        with self._translated(name):
            found = getattr(importlib.import_module(module), attribute)
            if not isinstance(found, expected):
                raise TypeError(f"{module}:{attribute} is not a {expected.__name__}")
            return found

    def make(self, name: str, *arguments: Any) -> Any:
        """Call the object of that name. Raises as `load`, also for what the call itself has to import."""
        made = self.load(name, object)
        with self._translated(name):
            return made(*arguments)  # type: ignore[operator]

    def _plugin(self, name: str) -> Plugin:
        return self._built_in.get(name) or self.plugins[name]

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        plugin = self._plugin(name)
        try:
            yield
        except CloudtuneError:
            raise
        except ImportError as error:
            message = f"{name} ({self.group}) needs {error.name}, which is not installed"
            raise BackendNotInstalled(message, hint=f"run: {plugin.command}") from error
        except Exception as error:  # another distribution's module may raise anything
            if plugin.is_built_in:
                raise
            message = f"{name} ({self.group}) cannot be loaded: {type(error).__name__}: {error}"
            raise BackendNotInstalled(message, hint=f"report this to the maintainers of {plugin.install}") from error

    def load_all(self, expected: type[T]) -> Iterator[T]:
        """Every object. Logs a warning for a plugin of another distribution that cannot be loaded."""
        for name, plugin in self.plugins.items():
            try:
                yield self.load(name, expected)
            except BackendNotInstalled:
                if plugin.is_built_in:
                    raise
                _log.warning("%s %r of %s is left out", self.group, name, plugin.install, exc_info=True)

    def code(self) -> set[Path]:
        """The source files of all plugins: their modules, and the other files of their packages."""
        files: set[Path] = set()
        for module in {plugin.target.partition(":")[0] for plugin in self.plugins.values()}:
            folder = package_folder(module.rpartition(".")[0])
            files |= set(folder.glob("*.py")) if folder is not None else set()
        return files


def package_folder(package: str) -> Path | None:
    """The folder of a package; None if it is not installed. Imports only its parent packages."""
    try:
        spec = find_spec(package) if package else None
    except ImportError:
        return None
    return Path(spec.submodule_search_locations[0]) if spec is not None and spec.submodule_search_locations else None


FORMATS = PluginTable(
    "cloudtune.formats",
    {
        "openai": "cloudtune_providers.openai_dialect.rows:CHAT",
        "openai-preference": "cloudtune_providers.openai_dialect.rows:PREFERENCE",
        "openai-rft": "cloudtune_providers.openai_dialect.rows:ITEMS",
        "azure-openai": "cloudtune_providers.azure_openai.rows:CHAT",
        "azure-openai-preference": "cloudtune_providers.azure_openai.rows:PREFERENCE",
        "azure-openai-rft": "cloudtune_providers.azure_openai.rows:ITEMS",
        "bedrock-converse": "cloudtune_providers.aws.converse:CONVERSE",
        "bedrock-nova-2": "cloudtune_providers.aws.converse:NOVA_2",
        "nova-preference": "cloudtune_providers.aws.converse:NOVA_PREFERENCE",
        "bedrock-prompt": "cloudtune_providers.bedrock.rows:PROMPT",
        "bedrock-rft": "cloudtune_providers.bedrock.rows:ITEMS",
        "bedrock-text": "cloudtune_providers.bedrock.rows:TEXT",
        "claude": "cloudtune_providers.bedrock.claude:CLAUDE",
        "sagemaker-messages": "cloudtune_providers.sagemaker.rows:MESSAGES",
        "sagemaker-prompt": "cloudtune_providers.sagemaker.rows:PROMPT",
        "sagemaker-preference": "cloudtune_providers.sagemaker.rows:PREFERENCE",
        "sagemaker-rlvr": "cloudtune_providers.sagemaker.rows:RLVR",
        "jumpstart-chat": "cloudtune_providers.jumpstart.rows:CHAT",
        "jumpstart-instruction": "cloudtune_providers.jumpstart.rows:INSTRUCTION",
    },
)
"""Names of `cloudtune.data.write.formats.Format` objects."""

ROW_KINDS = PluginTable(
    "cloudtune.row_kinds",
    {
        "nova_preference": "cloudtune_providers.aws.converse:NOVA_PREFERENCE_ROWS",
        "openai_preference": "cloudtune_providers.openai_dialect.rows:PREFERENCE_ROWS",
        "converse": "cloudtune_providers.aws.converse:CONVERSE_ROWS",
        "claude": "cloudtune_providers.bedrock.claude:CLAUDE_ROWS",
        "dialog": "cloudtune_providers.jumpstart.rows:DIALOG_ROWS",
        "input_text": "cloudtune_providers.bedrock.rows:INPUT_ROWS",
    },
)
"""Names of `cloudtune.data.read.kinds.Kind` objects, in the order in which rows are compared with them."""

ROW_CHECKS = PluginTable(
    "cloudtune.row_checks",
    {
        "chat-template": "cloudtune_trainer.submit.template_check:TemplateCheck",
        "embedding-loss": "cloudtune_trainer.submit.embedding:LossCheck",
    },
)
"""Names of classes that are made with a `Target.row_check`'s argument. Calling them returns a record's problems."""

TOKENIZERS = PluginTable(
    "cloudtune.tokenizers",
    {
        "o200k_base": "cloudtune_providers.openai_dialect.tokens:OpenAITokens",
        "cl100k_base": "cloudtune_providers.openai_dialect.tokens:OpenAITokens",
    },
)
"""Names of token counters: each is made by a callable that takes the name (`cloudtune.data.checks.tokens.Counter`)."""

STORES = PluginTable("cloudtune.sources", {"s3": "cloudtune_providers.aws.reading:S3Store"}, "aws")
"""URI schemes, and the class that reads files there (`cloudtune.data.read.remote.Store`), made without arguments."""
