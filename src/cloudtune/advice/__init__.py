"""Advice: prompting, retrieval, fine-tuning or more training, from a situation; the break-even from an evaluation."""

from __future__ import annotations

from cloudtune.advice.advise import Advice, Reason, advise
from cloudtune.advice.break_even import BreakEven, break_even
from cloudtune.advice.prices import Prices
from cloudtune.advice.situation import Situation

__all__ = ["Advice", "BreakEven", "Prices", "Reason", "Situation", "advise", "break_even"]
