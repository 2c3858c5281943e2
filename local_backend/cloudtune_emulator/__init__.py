"""An emulator of the vendors' HTTP APIs, served on loopback. Jobs are scripted, or really trained.

::

    with Emulator(engine="script") as emulator:
        client = openai.OpenAI(base_url=emulator.openai_url, api_key=emulator.settings.api_key)

``app`` receives every request, injects the faults of ``faults`` and passes the request to an API (``openai``,
``azure``, ``bedrock``, ``sagemaker``) or to moto (``aws``). APIs save their documents in ``store`` and get the state
of jobs from an engine (``script``, ``train``). The emulator makes no outbound calls and by default listens on loopback.
"""

from cloudtune_emulator.server import Emulator
from cloudtune_emulator.settings import Settings

__all__ = ["Emulator", "Settings"]
