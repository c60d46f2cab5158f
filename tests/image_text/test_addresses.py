"""Nothing private is ever connected to, by whatever name it goes."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tasks.image_text.addresses import Endpoint, PrivateAddressError, VettingResolver, is_literal, is_public


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
     "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
     "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
     "2001:0:4136:e378:8000:63bf:80ff:fffe"],
)  # fmt: skip
def test_private_addresses_are_known_in_all_their_clothes(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_public(address):
    assert is_public(address)


def test_literals_are_told_from_names():
    assert all(map(is_literal, ("127.0.0.1", "::1", "fe80::1%eth0")))
    assert not any(map(is_literal, ("example.org", "2130706433", "127.1"))), "these are resolved, and vetted then"


def resolve(monkeypatch, answers: list[str], host: str = "images.example", **options) -> list[str]:
    """Resolve a name for which the system would give these addresses."""

    def answer(name, port, *args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers]

    monkeypatch.setattr(socket, "getaddrinfo", answer)

    async def ask() -> list[str]:
        resolver = VettingResolver(**{"private": False, "hosts": {}} | options)
        return [result["host"] for result in await resolver.resolve(host, 80)]

    return asyncio.run(ask())


def test_a_name_yields_its_public_addresses_only(monkeypatch):
    assert resolve(monkeypatch, ["10.0.0.7", "93.184.216.34"]) == ["93.184.216.34"]
    with pytest.raises(PrivateAddressError, match=r"images\.example has no public address"):
        resolve(monkeypatch, ["127.0.0.1"])
    assert resolve(monkeypatch, ["127.0.0.1"], private=True) == ["127.0.0.1"]


def test_hosts_of_ones_own_are_taken_as_they_are(monkeypatch):
    own = {"pictures.test": Endpoint("127.0.0.1", 8123)}
    assert resolve(monkeypatch, [], host="pictures.test", hosts=own) == ["127.0.0.1"]
