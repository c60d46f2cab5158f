"""Manifests, configurations, and addresses of images."""

from __future__ import annotations

import ipaddress
import json
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from configs.base import Config
from configs.load import PROFILES, load_config, profile_names, read_profile
from configs.microvlm import MicroVlmConfig
from configs.trm_vlm import TrmVlmConfig
from configs.weather_pipeline import WeatherConfig
from configs.wildfire import WildfireConfig
from storage.hashing import json_digest
from storage.manifest import FileRecord, InputRecord, Manifest, UnitEntry, fingerprint, load_manifest, sealed
from tasks.image_text.addresses import is_disguised, is_literal, is_public
from tests.fuzz.case import Files, Reader
from tests.fuzz.mutate import NUMBERS, WORDS, json_bytes, mutate_bytes, mutate_json, mutate_text, some

# -- manifests ----------------------------------------------------------------------------------------------------


@cache
def _manifest() -> Any:
    files = (FileRecord(path="a.bin", size=3, sha256="0" * 64), FileRecord(path="d/b.bin", size=4, sha256="1" * 64))
    return json.loads(sealed(Manifest(
        stage="toy", kind="toy", key="k", version=1, code="c", config={"a": 1, "b": [1, {"c": None}]},
        inputs=(InputRecord(name="raw", kind="raw", key="", fingerprint="f", files=files[:1]),), files=files,
        units=(UnitEntry(id="u", key="k", files=("a.bin",), result={"rows": 3}),), fingerprint=fingerprint(files),
        counts={"rows": 3}, metrics={"loss": 0.5}, seconds=1.0, reason="new", software={"python": "3"},
        machines=({"threads": "2"},), created_at=datetime(2024, 1, 1, tzinfo=UTC),
    )))  # fmt: skip


def _make_manifest(random: Random) -> Files:
    facts = mutate_json(random, _manifest())
    if random.random() < 0.8 and isinstance(facts, dict):
        facts = _sealed(facts)
    return {"manifest.json": json_bytes(random, facts), "a.bin": b"abc"}


def _sealed(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts whose digests hold, where they can be taken."""
    try:
        records = [FileRecord.model_validate(record) for record in facts["files"]]
        facts["fingerprint"] = fingerprint(records)
        facts["digest"] = json_digest({name: value for name, value in facts.items() if name != "digest"})
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return facts


def _read_manifest(given: Path, made: Path) -> object:
    manifest = load_manifest(given / "manifest.json")
    assert isinstance(manifest.made_on, str)
    for record in manifest.files:
        assert Path(os.path.normpath(given / record.path)).is_relative_to(given)
    return [record.damage(given, deep=True) for record in manifest.files]


# -- configurations -----------------------------------------------------------------------------------------------

CONFIGS: dict[str, type[Config]] = {
    "weather": WeatherConfig, "wildfire": WildfireConfig, "microvlm": MicroVlmConfig, "trm_vlm": TrmVlmConfig,
}  # fmt: skip


@cache
def _profiles(pipeline: str) -> tuple[tuple[dict[str, Any], str], ...]:
    values = [read_profile(PROFILES / pipeline / f"{name}.yaml") for name in profile_names(pipeline)]
    return tuple((value, yaml.safe_dump(value)) for value in values)


YAML_TEXTS = ("&a [*a]", "!!python/object/apply:os.system [ls]", "? [a]\n: b", "{a: b", "- a", "a: b: c", "a: |\n  b",
              "<<: {a: 1}", "2024-13-45", "!!binary aaa", "&a {x: *a}", "extends: demo", "extends: x.yaml",
              "minutes: x",
              "a: 0o9", "0b2: 1", "1: 2", "null: 3", "a: !!float x", "a: !!int x", "12:99:99", "%YAML 9.9", "a: *b",
              "!!timestamp 2024-99-99", "!!set {a, b}", "!!omap [a: 1]", "a: .inf", "\t- a")  # fmt: skip


def _make_yaml(random: Random) -> Files:
    pipeline = random.choice(list(CONFIGS))
    values, text = random.choice(_profiles(pipeline))
    overrides = [_override(random, values) for _ in range(random.choice((0, 0, 1, 2)))]
    chance = random.random()
    if chance < 0.5:
        data = yaml.safe_dump(mutate_json(random, values), allow_unicode=random.random() < 0.5).encode(errors="replace")
    elif chance < 0.7:
        lines = text.split("\n")
        for _ in some(random, 3):
            lines.insert(random.randrange(len(lines) + 1), random.choice(YAML_TEXTS))
        data = "\n".join(lines).encode()
    else:
        data = mutate_bytes(random, text.encode()) if random.random() < 0.5 else mutate_text(random, text, ": ")
    return {"x.yaml": data, "pipeline": pipeline.encode(), "overrides": json.dumps(overrides).encode()}


def _override(random: Random, values: dict[str, Any]) -> str:
    name = random.choice((_name(random, values), "a", *WORDS))
    return f"{name}={random.choice((*NUMBERS, *WORDS, *YAML_TEXTS))}"


def _name(random: Random, values: dict[str, Any]) -> str:
    """Return the dotted name of some field."""
    name = random.choice(list(values))
    inner = values[name]
    return f"{name}.{_name(random, inner)}" if isinstance(inner, dict) and inner and random.random() < 0.8 else name


def _read_yaml(given: Path, made: Path) -> object:
    overrides = json.loads((given / "overrides").read_text())
    return load_config(CONFIGS[(given / "pipeline").read_text()], given / "x.yaml", overrides)


# -- addresses ----------------------------------------------------------------------------------------------------

HOSTS = ("127.0.0.1", "8.8.8.8", "10.0.0.1", "::1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
         "2002:7f00:1::",
         "2001:0:7f00:1::", "fe80::1%eth0", "fec0::1", "2606:4700::1", "0x7f.1", "2130706433", "0177.0.0.1", "1.1",
         "localhost", "1and1.example", "example.org.", "a..b", "xn--e1afmkfd", "127.0.0.1.", "[::1]",
         "1e3")  # fmt: skip
BLOCKED = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
                                             "fe80::/10", "fec0::/10", "::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48",
                                             "169.254.0.0/16", "100.64.0.0/10", "0.0.0.0/8",
                                             "224.0.0.0/3")]  # fmt: skip


def _make_address(random: Random) -> Files:
    chance = random.random()
    if chance < 0.3:
        host = str(ipaddress.ip_address(random.randbytes(random.choice((4, 16)))))
    elif chance < 0.6:
        prefix = random.choice(
            ("::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::", "2002:", "2001:0:", "fe80::5efe:")
        )
        low = random.choice((random.randbytes(4), b"\x7f\0\0\1", b"\x0a\0\0\1", b"\x08\x08\x08\x08"))
        host = f"{prefix}{low[:2].hex()}:{low[2:].hex()}" + ("::" if prefix.startswith("200") else "")
    else:
        host = mutate_bytes(random, random.choice(HOSTS).encode()).decode(errors="replace")
    return {"host": host.encode()}


def _read_address(given: Path, made: Path) -> object:
    host = (given / "host").read_bytes().decode()
    if not is_literal(host):
        return is_disguised(host)
    public = is_public(host)
    ip = ipaddress.ip_address(host.partition("%")[0])
    assert not (public and any(ip in network for network in BLOCKED)), f"{host} is not public"
    return public


READERS = (
    Reader("manifest", ("storage.manifest",), _make_manifest, _read_manifest),
    Reader(
        "yaml", ("configs.load", *(model.__module__ for model in CONFIGS.values())), _make_yaml, _read_yaml, least=50
    ),
    Reader("address", ("tasks.image_text.addresses",), _make_address, _read_address),
)
