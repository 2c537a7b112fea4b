"""The firewall of this host as it stands: knows what is in the nft table and applies what differs.

The text comes from `firewall.py` and `balance.py`. Where a difference cannot be applied, because somebody flushed
or changed our table, the whole is written again; `mend` finds that out when nothing differs.
Blocking; for one thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from agent.kernel.nft import Nft
from agent.network import balance, firewall
from agent.network.balance import TABLE, Balance
from agent.network.firewall import Published
from agent.network.segment import Segment
from shoal.errors import ShoalError

log = logging.getLogger(__name__)


class Table:
    """State changes only with a transaction that succeeded."""

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._segments: tuple[Segment, ...] = ()
        self._published: frozenset[Published] = frozenset()
        self._balance = Balance()

    def replace(self, segments: Sequence[Segment], published: Iterable[Published], services: Balance) -> None:
        """All of it at once."""
        wanted = frozenset(published)
        self._nft.run(firewall.ruleset(segments, wanted, services))
        self._segments, self._published, self._balance = tuple(segments), wanted, services

    def serve(self, segments: Sequence[Segment], services: Balance) -> None:
        """These networks and services; published ports stay."""
        if tuple(segments) != self._segments:
            self.replace(segments, self._published, services)
        elif services != self._balance:
            self._change(balance.delta(self._balance, services), self._published, services)

    def publish(self, published: Iterable[Published]) -> None:
        wanted = frozenset(published) - self._published
        if wanted:
            self._change(firewall.publish(wanted), self._published | wanted, self._balance)

    def unpublish(self, published: Iterable[Published]) -> None:
        gone = frozenset(published) & self._published
        if gone:
            self._change(firewall.unpublish(gone), self._published - gone, self._balance)

    def mend(self) -> None:
        """Put right what others did to the firewall: our table is there, and no chain of iptables is in the way."""
        if self._listed(f"{TABLE} forward") is None:
            log.warning("somebody removed the firewall table %s; writing it again", TABLE)
            self.replace(self._segments, self._published, self._balance)
        forward = self._listed(firewall.FORWARD)
        if forward is not None and (commands := firewall.admission(forward)):
            self._nft.run(commands)
            log.info("let the networks of containers through iptables' FORWARD chain")

    def _listed(self, chain: str) -> str | None:
        try:
            return self._nft.run(f"list chain {chain}")
        except ShoalError:
            return None

    def close(self) -> None:
        """The table stays."""
        self._nft.close()

    def _change(self, commands: str, published: frozenset[Published], services: Balance) -> None:
        try:
            if commands:
                self._nft.run(commands)
        except ShoalError as error:
            log.warning("the firewall table is not as it was left, writing all of it again: %s", error)
            self.replace(self._segments, published, services)
        self._published, self._balance = published, services
