"""What a look at the back ends costs: no SDK is loaded until something is asked of a service."""

from __future__ import annotations

import subprocess
import sys


def test_capabilities_and_plans_load_no_sdk():
    code = (
        "import sys\n"
        "from cloudtune.registry import open_backend\n"
        "for name, settings in (('openai', {}), ('azure_openai', {'endpoint': 'https://r.openai.azure.com'})):\n"
        "    backend = open_backend(name, settings)\n"
        "    assert backend.capabilities.can('method:sft')\n"
        "    repr(backend)\n"
        "heavy = {'openai', 'httpx2', 'azure.identity', 'azure.mgmt.cognitiveservices', 'azure.core', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
