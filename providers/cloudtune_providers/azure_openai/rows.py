"""Training rows of Azure OpenAI: OpenAI's format, in files that begin with a byte order mark.

learn.microsoft.com/azure/foundry/openai/how-to/fine-tuning, seen 2026-11-21.
"""

from __future__ import annotations

from cloudtune_providers.openai_dialect import rows

CHAT = rows.CHAT._replace(name="azure-openai", summary="OpenAI's chat messages, with a byte order mark", bom=True)
PREFERENCE = rows.PREFERENCE._replace(
    name="azure-openai-preference", summary="OpenAI's pairs, with a byte order mark", bom=True
)
ITEMS = rows.ITEMS._replace(name="azure-openai-rft", summary="OpenAI's items, with a byte order mark", bom=True)
