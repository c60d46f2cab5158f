"""Nothing private is ever connected to, by whatever name it goes."""

from __future__ import annotations

import asyncio
import socket

import pytest

from configs.image_text import Crawling, Fetching
from tasks.image_text.addresses import (
    Endpoint,
    PrivateAddressError,
    VettingResolver,
    is_disguised,
    is_literal,
    is_public,
)
from tasks.image_text.fetch import Fetcher, FetchError

PRIVATE = {
    "IPv4-compatible": ["::127.0.0.1", "::10.0.0.1", "::169.254.169.254"],
    "IPv4-translated": ["::ffff:0:7f00:1", "::ffff:0:10.0.0.1", "::ffff:0:808:808"],
    "NAT64 of a private address": ["64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::c0a8:101"],
    "NAT64 with a local prefix": ["64:ff9b:1::10.0.0.1", "64:ff9b:1:a00:1::", "64:ff9b:1::8.8.8.8"],
    "6to4 of a private address": ["2002:a00:1::", "2002:7f00:1::1", "2002:a9fe:a9fe::"],
    "Teredo with a private client": ["2001:0:808:808::f5ff:fffe", "2001:0:808:808:8000:63bf:80ff:fffe"],
    "Teredo with a private server": ["2001:0:a00:1::f7f7:f7f7"],
    "ISATAP of a private address": [
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:7f00:1",
        "2002:808:808::5efe:a00:1",
    ],
    "site-local": ["fec0::1", "feff::1"],
    "outside of global unicast": ["4000::1", "5f00::1", "100::1", "100:0:0:1::1", "e000::1"],
    "the nearest translator, sinks of look-ups": [
        "192.0.0.9",
        "192.0.0.10",
        "192.31.196.1",
        "192.52.193.1",
        "192.175.48.1",
        "2620:4f:8000::1",
        "::ffff:192.0.0.9",
    ],
    "documentation, benchmarks, relays": [
        "3fff::1",
        "2001:db8::1",
        "2001:2::1",
        "2001:20::1",
        "192.88.99.1",
        "198.19.0.1",
    ],
}
DISGUISED = [
    "2130706433", "0x7f000001", "017700000001", "127.1", "127.0.1", "0x7f.1", "0177.0.0.1", "127.0.0.01", "127.0.0.1.",
    "134744072", "8.8.8.8.", "0x08.8.8.8", "1.2.3.4.5", "256.1.1.1", "%31%32%37.0.0.1", "0X7F.0.0.0x1", "0x",
]  # fmt: skip


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
    "address",
    [
        pytest.param(address, marks=pytest.mark.input_shape(format="address", shape=shape, outcome="refused"))
        for shape, addresses in PRIVATE.items()
        for address in addresses
    ],
)
def test_only_global_unicast_passes_and_every_embedding_is_unwrapped(address):
    assert not is_public(address)


@pytest.mark.input_shape(format="address", shape="decimal, octal, hexadecimal or short IPv4", outcome="refused")
@pytest.mark.parametrize("host", DISGUISED)
def test_other_spellings_of_ipv4_are_bad_urls_by_a_rule_of_our_own(host, monkeypatch):
    def resolved(*args, **kwargs):
        raise AssertionError("nobody is asked for the name")

    monkeypatch.setattr(socket, "getaddrinfo", resolved)

    async def fetch(private: bool) -> None:
        async with Fetcher(Fetching(private_addresses=private), Crawling(), hosts={}) as fetcher:
            await fetcher.get(f"http://{host}/a.jpg")

    for private in (False, True):
        with pytest.raises(FetchError) as caught:
            asyncio.run(fetch(private))
        assert caught.value.status == "bad_url"
        assert "spelling" in str(caught.value)


def test_names_are_not_taken_for_numbers():
    hosts = (
        "1and1.example",
        "0x7f.example",
        "3com.com",
        "127.0.0.1.nip.io",
        "8.8.8.8",
        "::1",
        "0xcafe.beef",
        "xn--p1ai",
    )
    assert not any(map(is_disguised, hosts))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
     "2001:0:808:808::f7f7:f7f7", "2606:4700::200:5efe:808:808", "2001:4860:4860::8888"],
)  # fmt: skip
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
