"""The vendors' wire APIs, served on loopback in front of scripted or really trained jobs.

::

    with Emulator(engine="script") as emulator:
        client = openai.OpenAI(base_url=emulator.openai_url, api_key=emulator.settings.api_key)

``app`` receives every request, lets the faults of ``faults`` happen to it and hands it to an API (``openai``,
``azure``, ``bedrock``, ``sagemaker``) or to moto (``aws``); APIs keep what they are given in ``store`` and ask an
engine (``script``, ``train``) how jobs stand. It never calls out, and listens on loopback unless it is told otherwise.
"""

from cloudtune_emulator.server import Emulator
from cloudtune_emulator.settings import Settings

__all__ = ["Emulator", "Settings"]
