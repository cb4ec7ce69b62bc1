"""When a failed call is made again. Pure, but for the random part."""

from __future__ import annotations

import random
from typing import Optional

from qkscope.errors import QkscopeError, retry_delay_base

_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 30.0


def backoff(attempt: int, at_least: float = 0.0) -> float:
    """Seconds to wait before retry number `attempt`, from 0. The wait doubles
    each time, is at least what the server asked for, and is randomised so that
    many clients do not return at once."""
    delay: float = max(_FIRST_BACKOFF_S * 2 ** min(attempt, 10), at_least)
    return min(delay, _LONGEST_BACKOFF_S) * random.uniform(1.0, 1.5)


def retry_delay(error: QkscopeError, attempt: int) -> Optional[float]:
    """Seconds to wait before the retry, or None if it would not help."""
    at_least = retry_delay_base(error)
    return None if at_least is None else backoff(attempt, at_least)
