"""Which addresses may be fetched from: names are resolved once, vetted, and connections go to what was vetted."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Endpoint(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class PrivateAddressError(OSError):
    """A name that leads to no public address."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet; IPv6 addresses that carry an IPv4 address are as it is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64:
            carried = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if carried is not None:
            return is_public(str(carried))
    return ip.is_global and not ip.is_multicast


def is_literal(host: str) -> bool:
    """Whether a URL's host is an IP address, which no resolver gets to see."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class VettingResolver(AbstractResolver):
    """Resolves names to public addresses only, so that neither a name nor a second answer leads into a private network.

    `hosts` maps names to servers of the caller's own, which are taken as they are.
    """

    def __init__(self, *, private: bool, hosts: Mapping[str, Endpoint]) -> None:
        self._private = private
        self._hosts = hosts
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return a name's public addresses; `PrivateAddressError` when it has only others."""
        if own := self._hosts.get(host):
            return [_result(host, own)]
        found = await self._system.resolve(host, port, family)
        public = [result for result in found if self._private or is_public(result["host"])]
        if found and not public:
            raise PrivateAddressError(f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Nothing is kept open."""


def _result(name: str, place: Endpoint) -> ResolveResult:
    return ResolveResult(
        hostname=name, host=place.host, port=place.port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
    )
