"""Proof that what GenRL takes from the top of hivemind is there and works: a value goes from one node to another.

Run as ``ENV/bin/python -I hivemind_top_level.py``: exit 0 and one line ``ok: ...``, or a traceback and
exit 1. Without the patch that is ``ImportError: cannot import name 'get_dht_time' from 'hivemind'``. Both nodes
are on this machine, and nothing is asked of a network.
"""

from __future__ import annotations

import time

from genrl.communication.hivemind.hivemind_backend import HivemindBackend
from hivemind import DHT, PeerID, get_dht_time

HERE = ["/ip4/127.0.0.1/tcp/0"]
PATIENCE = 120  # seconds, as rl-swarm has them: the daemon starts slowly on a busy machine


def must(holds: bool, what: str) -> None:
    """Raises AssertionError with ``what`` unless it holds; ``assert`` would vanish under ``python -O``."""
    if not holds:
        raise AssertionError(what)


def main() -> None:
    """Store a value with one node, and find it with another."""
    must(abs(get_dht_time() - time.time()) < 3, "the time of the DHT is another than this machine's")
    first = DHT(start=True, host_maddrs=HERE, startup_timeout=PATIENCE)
    try:
        peers = [str(address) for address in first.get_visible_maddrs()]
        second = DHT(start=True, host_maddrs=HERE, initial_peers=peers, startup_timeout=PATIENCE)
        try:
            must(isinstance(second.peer_id, PeerID), "a node has no PeerID")
            first.store("key", 7, expiration_time=get_dht_time() + 60)
            found = second.get("key")
            must(found is not None and found.value == 7, f"instead of the value that was stored, {found} was found")
        finally:
            second.shutdown()
    finally:
        first.shutdown()
    print(f"ok: {HivemindBackend.__name__} of GenRL is there, and two nodes of hivemind exchange a value")


if __name__ == "__main__":
    main()
