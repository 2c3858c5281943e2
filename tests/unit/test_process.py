"""Who a process is, and whether its death can be seen from here."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from cloudtune.processes.identity import Owner, boot_id


def test_this_process_lives_and_one_that_ended_does_not() -> None:
    here = Owner.here()
    assert here.is_local
    assert here.is_alive()
    child = subprocess.run(
        [sys.executable, "-c", "from cloudtune.processes.identity import Owner; print(Owner.here().dump())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    gone = Owner.load(child.stdout)
    assert gone.is_local
    assert not gone.is_alive()


def test_a_process_of_another_container_on_this_machine_cannot_be_seen() -> None:
    boot, _, _ = boot_id().partition("/")
    other = msgspec.structs.replace(Owner.here(), boot=f"{boot}/pid:[1]")
    assert not other.is_local, "its pid means nothing here: it may well live"


def test_whatever_lived_before_this_start_of_the_machine_is_dead() -> None:
    before = msgspec.structs.replace(Owner.here(), boot="another-boot/pid:[1]")
    assert before.is_local
    assert not before.is_alive()
