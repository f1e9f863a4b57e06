"""Holds a pod's TorchServe up while the balancer in front of it finishes, since at a SIGTERM it drops what it works on.

Run before the SIGTERM (Kubernetes' preStop). It returns when balancers have had time to look away and no request has
waited for a while; in any case after a time limit.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.serving.management import Management

URL = "http://127.0.0.1:8081"
KEY_FILE = Path("state/key_file.json")
"""In the container's working folder; absent where the server asks for no key."""

LOOK_AWAY_S = 8.0
"""For endpoints to be taken out everywhere, and for the balancer beside us to close its port (after 5 s)."""
QUIET_S = 2.0
"""A worker holds a batch that it works on, which is not in the queue any more; most batches take less than this."""
LIMIT_S = 40.0
_POLL_S = 0.25


def drain(count: Callable[[], int], *, look_away_s: float, quiet_s: float, limit_s: float) -> bool:
    """Wait until nothing has waited for `quiet_s` seconds.

    Args:
        count: how many requests are in the queues.
        look_away_s: seconds before the first look.
        quiet_s: seconds without a waiting request that are enough.
        limit_s: seconds in all after which it gives up.

    Returns:
        Whether it became quiet.
    """
    start = time.monotonic()
    time.sleep(look_away_s)
    last_busy = time.monotonic()
    while time.monotonic() - start < limit_s:
        if count():
            last_busy = time.monotonic()
        elif time.monotonic() - last_busy >= quiet_s:
            return True
        time.sleep(_POLL_S)
    return False


def waiting(management: Management) -> int:
    """Requests in the queues of all models.

    Raises:
        SuffuseError: the server does not answer.
    """
    return sum(management.describe(name).pending for name in management.models())


def main() -> int:
    """0 where it became quiet, or nobody is left to wait for; 1 at the time limit."""
    with Management(URL, key_file=KEY_FILE if KEY_FILE.exists() else None, timeout_s=4.0) as management:
        try:
            quiet = drain(lambda: waiting(management), look_away_s=LOOK_AWAY_S, quiet_s=QUIET_S, limit_s=LIMIT_S)
        except SuffuseError as error:
            sys.stdout.write(f"nothing to wait for: {error}\n")
            return 0
    return 0 if quiet else 1


if __name__ == "__main__":
    sys.exit(main())
