"""For tests of code that uses cloudtune, and of back ends: a fake clock, a scripted vendor, the contract suite.

`FakeClock`, `ScriptedVendor`, `ScriptedBackend` and `faults` need nothing but cloudtune. The suite itself is
`cloudtune.testing.contract`, which needs pytest.
"""

from cloudtune.testing import faults
from cloudtune.testing.clock import FakeClock
from cloudtune.testing.job_timeline import Script
from cloudtune.testing.scripted import ScriptedBackend
from cloudtune.testing.scripted_options import ScriptedOptions
from cloudtune.testing.service import VendorError
from cloudtune.testing.vendor import PERSONALITIES, Personality, ScriptedVendor
from cloudtune.testing.world import Recipe, World

__all__ = [
    "PERSONALITIES",
    "FakeClock",
    "Personality",
    "Recipe",
    "Script",
    "ScriptedBackend",
    "ScriptedOptions",
    "ScriptedVendor",
    "VendorError",
    "World",
    "faults",
]
