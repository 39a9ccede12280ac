"""Adapts aioice: our ICE agent uses ports of a range, one announced address, and only authenticated peers.

`aiortc_adapter` lists what is changed in aioice, and why.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from dataclasses import dataclass
from typing import Any

from aioice import ice, stun, turn
from aioice.candidate import Candidate, candidate_foundation, candidate_priority

#: How long we wait for STUN servers; an answer to the client must not take longer than 2 s.
GATHER_S = 1.0
#: Most addresses of one client that are remembered. A client has some eight candidate pairs, and gets a new
#: one after each change of its network.
_MAX_AUTHENTICATED = 64


@dataclass(frozen=True, slots=True)
class UdpSettings:
    """Holds where media sockets are opened and how they are announced."""

    #: First and last UDP port; None for any free port.
    ports: tuple[int, int] | None = None
    #: Address that is announced in place of the local addresses; empty to announce these.
    public_ip: str = ""
    #: `stun:` addresses of servers that tell us our own public address.
    stun_servers: tuple[str, ...] = ()


class NoFreePort(OSError):
    """All UDP ports of the range are in use."""


class _MediaSocket(ice.StunProtocol):
    """A media socket. It accepts non-STUN packets only from addresses that completed a STUN check."""

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        agent = self.receiver
        if isinstance(data, bytes) and data and data[0] > 3 and isinstance(agent, IceAgent):
            if agent.accepts(self, (addr[0], addr[1])):
                agent.data_received(data, self.local_candidate.component)
            return
        super().datagram_received(data, addr)


class IceAgent(ice.Connection):
    """Accepts data only from addresses that proved in a STUN check that they know the session's password."""

    plan: UdpSettings
    #: Our socket and the remote address of every authenticated STUN request.
    authenticated: set[tuple[ice.StunProtocol, tuple[str, int]]]

    def check_incoming(
        self, message: stun.Message, addr: tuple[str, int], protocol: ice.StunProtocol
    ) -> None:
        """Process an authenticated request and remember its sender."""
        if len(self.authenticated) < _MAX_AUTHENTICATED:
            self.authenticated.add((protocol, (addr[0], addr[1])))
        super().check_incoming(message, addr, protocol)

    def accepts(self, protocol: ice.StunProtocol, address: tuple[str, int]) -> bool:
        """Return whether ``address`` sent an authenticated request or belongs to a pair that passed a check.

        Both count: once a pair is nominated, aioice forgets the pairs that it has not checked itself yet, and
        the client may have chosen one of these.
        """
        if (protocol, address) in self.authenticated:
            return True
        good = ice.CandidatePair.State.SUCCEEDED
        return any(
            pair.protocol is protocol
            and pair.remote_addr == address
            and (pair.nominated or pair.state is good)
            for pair in (*self._nominated.values(), *self._check_list)
        )

    def respond_error(
        self,
        request: stun.Message,
        addr: tuple[str, int],
        protocol: ice.StunProtocol,
        error_code: tuple[int, str],
    ) -> None:
        """Send an error only for an authenticated request (487); others may have a forged sender address."""
        if error_code[0] not in (400, 401):
            super().respond_error(request, addr, protocol, error_code)

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 5
    ) -> list[Candidate]:
        """Open the sockets. Raises NoFreePort when all ports of the range are in use."""
        plan = self.plan
        candidates: list[Candidate] = []
        hosts: list[ice.StunProtocol] = []
        for address in _addresses(plan, addresses):
            protocol = await _bind(self, address, plan.ports)
            if protocol is None:
                continue
            hosts.append(protocol)
            # Register the socket at once, so that closing the agent closes it whatever happens next.
            self._protocols.append(protocol)
            _, port = protocol.transport.get_extra_info("sockname")[:2]
            host = plan.public_ip or address
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=host,
                port=port,
                type="host",
            )
            candidates.append(protocol.local_candidate)
        if self.stun_server and not plan.public_ip:
            candidates += await _reflexive(hosts, self.stun_server)
        return candidates


def _addresses(plan: UdpSettings, found: list[str]) -> list[str]:
    """Return the local addresses to open a socket on."""
    if plan.public_ip:
        return ["::" if ":" in plan.public_ip else "0.0.0.0"]  # noqa: S104 - a port mapping is in front of it
    return found or ["127.0.0.1"]


async def _bind(agent: IceAgent, address: str, ports: tuple[int, int] | None) -> ice.StunProtocol | None:
    """Open a socket on a free port of the range; None when this address cannot be used at all."""
    loop = asyncio.get_running_loop()
    first, last = ports or (0, 0)
    count = last - first + 1
    offset = random.randrange(count)  # noqa: S311 - spreads over the range
    for step in range(count):
        port = first + (offset + step) % count
        try:
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: _MediaSocket(agent), local_addr=(address, port)
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE and ports:
                continue
            return None
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
        return protocol
    raise NoFreePort(f"all UDP ports from {first} to {last} are in use")


async def _reflexive(hosts: list[ice.StunProtocol], server: tuple[str, int]) -> list[Candidate]:
    """Ask the STUN server for our public address. Answers that take longer than GATHER_S are left out."""
    tasks = [
        asyncio.create_task(ice.server_reflexive_candidate(protocol, server))
        for protocol in hosts
        if ":" not in protocol.local_candidate.host
    ]
    if not tasks:
        return []
    done, late = await asyncio.wait(tasks, timeout=GATHER_S)
    for task in late:
        task.cancel()
    return [task.result()[0] for task in done if task.exception() is None]
