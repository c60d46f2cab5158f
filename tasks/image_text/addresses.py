"""Which addresses may be fetched from: names are resolved once, vetted, and connections go to what was vetted."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

MAPPED = ipaddress.ip_network("::ffff:0:0/96")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
UNICAST = ipaddress.ip_network("2000::/3")
TUNNELS = tuple(map(ipaddress.ip_network, ("2001::/32", "2002::/16")))
"""Teredo and 6to4: public where all IPv4 addresses are that they carry."""
NO_SERVERS = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24",
            "2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20",
        ),
    )
)  # fmt: skip
"""Parts of the public ranges where nobody serves images: the nearest translator, sinks of reverse look-ups, relays,
registries' own protocols, documentation."""
ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""Upper half of an interface identifier whose lower half is an IPv4 address."""
OTHER_SPELLING = re.compile(r"\d+|0x[\da-f]*", re.ASCII | re.IGNORECASE)


class Endpoint(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class PrivateAddressError(OSError):
    """A name that leads to no public address."""


def is_public(address: str) -> bool:
    """Whether an IP address is global unicast, and every IPv4 address that it carries is so too.

    Of all that lies outside of the range that IPv6 gives to unicast, only mapped and NAT64 addresses lead to somebody;
    deprecated forms such as `::127.0.0.1` and `::ffff:0:127.0.0.1`, and prefixes for local translators, do not.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    carried = _carried(ip) if isinstance(ip, ipaddress.IPv6Address) else []
    if any(not is_public(str(inner)) for inner in carried):
        return False
    if ip.version == 6 and (ip in MAPPED or ip in NAT64 or any(ip in tunnel for tunnel in TUNNELS)):
        return True
    if ip.version == 6 and ip not in UNICAST:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in NO_SERVERS)


def _carried(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses to which packets for an IPv6 address would go on."""
    low = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in NAT64 or (int(ip) >> 32) & 0xFFFFFFFF in ISATAP:
        found.append(low)
    return [inner for inner in found if inner is not None]


def is_literal(host: str) -> bool:
    """Whether a URL's host is an IP address, which no resolver gets to see."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_disguised(host: str) -> bool:
    """Whether a host that is no literal is still a number: decimal, octal, hexadecimal or shortened IPv4.

    Systems read `2130706433`, `0x7f.1`, `0177.0.0.1` and `127.0.0.1.` as addresses, each by rules of its own. No name
    ends in a number, so none of them is one.

    >>> is_disguised("0x7f.1"), is_disguised("127.0.0.1"), is_disguised("1and1.example")
    (True, False, False)
    """
    last = host.removesuffix(".").rpartition(".")[2]
    return not is_literal(host) and OTHER_SPELLING.fullmatch(last) is not None


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
