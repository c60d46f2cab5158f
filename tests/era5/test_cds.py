"""Downloads from the Climate Data Store, against a server on the loopback interface."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

from configs.weather import CdsSource
from tasks.era5 import cds
from tasks.era5.cds import CdsPartition, cds_partitions, fetch_cds
from tasks.era5.periods import is_preliminary
from tests.era5.cds_server import TOKEN, CdsServer, field


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CDSAPI_URL", "CDSAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CDSAPI_RC", str(tmp_path / "absent"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, no_credentials: None) -> Iterator[CdsServer]:
    monkeypatch.setattr(cds, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(cds, "MAX_TRIES", 6)
    with CdsServer().running() as running:
        monkeypatch.setenv("CDSAPI_URL", running.url)
        monkeypatch.setenv("CDSAPI_KEY", TOKEN)
        yield running


def source(**changes: Any) -> CdsSource:
    settings: dict[str, Any] = {
        "start": date(2024, 1, 30),
        "end": date(2024, 3, 2),
        "single_level": ("2m_temperature",),
        "hours": (0, 12),
        "area": (50, -10, 40, 10),
        "grid": 5.0,
    }
    return CdsSource(**settings | changes)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "absent")


# --- requests


def test_a_period_is_cut_into_months_and_products() -> None:
    config = source(pressure_level=("temperature",), levels=(500, 850))
    partitions = cds_partitions(config)
    assert [p.id for p in partitions] == [
        f"{product}_{month}"
        for month in ("2024-01", "2024-02", "2024-03")
        for product in ("single-levels", "pressure-levels")
    ]
    assert [len(p.request["day"]) for p in partitions] == [2, 2, 29, 29, 2, 2]
    assert partitions[1].dataset == "reanalysis-era5-pressure-levels"
    assert partitions[1].request == {
        "product_type": ["reanalysis"],
        "variable": ["temperature"],
        "year": ["2024"],
        "month": ["01"],
        "day": ["30", "31"],
        "time": ["00:00", "12:00"],
        "pressure_level": ["500", "850"],
        "area": [50.0, -10.0, 40.0, 10.0],
        "grid": "5.0/5.0",
        "data_format": "netcdf",
        "download_format": "unarchived",
    }


def test_requests_do_not_depend_on_the_order_of_the_config() -> None:
    one = source(single_level=("2m_temperature", "surface_pressure"), hours=(12, 0))
    other = source(single_level=("surface_pressure", "2m_temperature", "surface_pressure"), hours=(0, 12))
    assert cds_partitions(one) == cds_partitions(other)


def test_globe_and_native_grid_are_left_to_the_server() -> None:
    request = cds_partitions(source(area=None, grid=None))[0].request
    assert not {"area", "grid", "pressure_level"} & set(request)


@pytest.mark.parametrize("max_fields", [744, 5_000, 12_000, 20_000])
def test_no_request_is_larger_than_the_limit_and_nothing_is_lost(max_fields: int) -> None:
    variables = ("geopotential", "relative_humidity", "temperature", "u_component_of_wind")
    levels = (1000, 925, 850, 700, 500, 300, 200, 100)
    config = source(
        single_level=(),
        pressure_level=variables,
        levels=levels,
        hours=tuple(range(24)),
        start=date(2024, 1, 1),
        end=date(2024, 1, 31),
        max_fields=max_fields,
    )
    asked = []
    partitions = cds_partitions(config)
    for request in (p.request for p in partitions):
        pairs = [(v, int(level)) for v in request["variable"] for level in request["pressure_level"]]
        assert len(pairs) * 31 * 24 <= max_fields
        asked += pairs
    assert sorted(asked) == sorted((v, level) for v in variables for level in levels)
    assert len({p.id for p in partitions}) == len(partitions)


def test_partitions_survive_json() -> None:
    partition = cds_partitions(source())[0]
    assert CdsPartition.model_validate(json.loads(partition.model_dump_json())) == partition


@pytest.mark.parametrize("area", [(40, -10, 50, 10), (91, 0, 0, 10), (50, -200, 40, 10)])
def test_an_impossible_area_is_refused(area: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="north, west, south, east"):
        source(area=area)


def test_recent_months_are_preliminary() -> None:
    january, february, march = cds_partitions(source())
    assert not is_preliminary(january.end, date(2024, 6, 1))
    assert is_preliminary(february.end, date(2024, 6, 1))
    assert is_preliminary(march.end, date(2024, 3, 1)), "a month that has not ended may still grow"


# --- downloads


def test_a_file_holds_what_was_asked_for(server: CdsServer, tmp_path: Path) -> None:
    server.statuses = ["accepted", "running", "successful"]
    config = source(single_level=(), pressure_level=("temperature", "geopotential"), levels=(850, 500))
    partition = cds_partitions(config)[0]
    fetch_cds(partition, config, tmp_path / "january.nc")
    with xr.open_dataset(tmp_path / "january.nc") as data:
        assert set(data.data_vars) == {"t", "z"}
        assert dict(data.sizes) == {"valid_time": 4, "pressure_level": 2, "latitude": 3, "longitude": 5}
        np.testing.assert_array_equal(data["t"], field("t", 2, 4, 3, 5))
        assert data["valid_time"].values[-1] == np.datetime64("2024-01-31T12")
    assert server.submitted == [(partition.dataset, partition.request)]
    assert server.polls >= 3
    assert files(tmp_path) == ["january.nc"]


def test_instantaneous_and_accumulated_variables_arrive_as_zip(server: CdsServer, tmp_path: Path) -> None:
    config = source(single_level=("2m_temperature", "total_precipitation"))
    fetch_cds(cds_partitions(config)[0], config, tmp_path / "january.nc")
    with zipfile.ZipFile(tmp_path / "january.nc") as archive:
        assert sorted(archive.namelist()) == [
            "data_stream-oper_stepType-accum.nc",
            "data_stream-oper_stepType-instant.nc",
        ]


def test_a_second_run_asks_only_for_what_is_missing(server: CdsServer, tmp_path: Path) -> None:
    config = source()
    partitions = cds_partitions(config)

    def fetch_missing() -> list[str]:
        missing = [p for p in partitions if not (tmp_path / f"{p.id}.nc").exists()]
        for partition in missing:
            fetch_cds(partition, config, tmp_path / f"{partition.id}.nc")
        return [p.id for p in missing]

    fetch_cds(partitions[1], config, tmp_path / f"{partitions[1].id}.nc")
    assert fetch_missing() == [partitions[0].id, partitions[2].id]
    assert fetch_missing() == []
    assert len(server.submitted) == server.asset_gets == 3


def test_trouble_in_transit_is_retried(server: CdsServer, tmp_path: Path) -> None:
    server.transient = [500, 429, 503]
    server.cut_downloads = 2
    config = source()
    fetch_cds(cds_partitions(config)[0], config, tmp_path / "january.nc")
    with xr.open_dataset(tmp_path / "january.nc") as data:
        np.testing.assert_array_equal(data["t2m"], field("t2m", 1, 4, 3, 5)[:, 0])
    assert server.asset_gets == 3
    assert len(server.submitted) == 1


@pytest.mark.filterwarnings("ignore:500 Server Error")
@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (
            {"refusal": (403, "required licences not accepted", "Not all the required licences have been accepted.")},
            r"single-levels_2024-01: required licences not accepted; Not all .* accepted "
            r"\(403 Client Error: Forbidden\) - "
            r"accept the licence once at https://\S+/reanalysis-era5-single-levels\?tab=download$",
        ),
        ({"max_fields": 3}, r"cost limits exceeded; Your request is too large.*lower source.max_fields"),
        (
            {"job_error": ("The job has failed", "MARS returned no data, please check your selection.")},
            r"The job has failed; MARS returned no data.*check source.single_level",
        ),
        (
            {"job_error": ("The job has failed", "None of the data you have requested is available yet.")},
            r"is available yet \(400 Client Error: Bad Request\) - let the period end earlier: source.end",
        ),
        ({"statuses": ["dismissed"]}, r"API state 'dismissed' - run again later"),
        ({"transient": [500] * 99}, r"500 Server Error"),
        ({"asset_status": 404}, r"downloaded 0 byte\(s\) out of \d+ - run again later"),
        ({"cut_downloads": 99}, r"gave no file for single-levels_2024-01: .*Connection broken.* - check the network"),
        ({"wrong_size": True}, r"downloaded \d+ byte\(s\) out of \d+ - run again later"),
        ({"content": b"<html>Sorry, maintenance</html>"}, r"31 bytes .* begins with b'<html>"),
        ({"content": b'{"title": "not ready"}' + b" " * 26}, r"48 bytes .* begins with b'{"),
        ({"content": b"\x89HDF\r\n\x1a\n" + bytes(40)}, r"48 bytes .* not a readable NetCDF"),
        ({"content": b"PK\x03\x04" + bytes(44)}, r"48 bytes .* not a zip file"),
        ({"content": b""}, r"0 bytes .* begins with b''"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_a_failure_is_one_sentence_and_leaves_no_file(
    server: CdsServer, tmp_path: Path, trouble: dict[str, Any], sentence: str
) -> None:
    for name, value in trouble.items():
        setattr(server, name, value)
    config = source()
    with pytest.raises(ValueError, match=sentence) as caught:
        fetch_cds(cds_partitions(config)[0], config, tmp_path / "january.nc")
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert files(tmp_path) == []


def test_a_damaged_file_of_the_right_size_is_refused(server: CdsServer, tmp_path: Path) -> None:
    config = source(single_level=("2m_temperature", "total_precipitation"))
    partition = cds_partitions(config)[0]
    fetch_cds(partition, config, tmp_path / "good.nc")
    damaged = bytearray((tmp_path / "good.nc").read_bytes())
    damaged[len(damaged) // 4] ^= 0xFF
    server.content = bytes(damaged)
    with pytest.raises(ValueError, match="not a readable NetCDF or ZIP file"):
        fetch_cds(partition, config, tmp_path / "bad.nc")
    assert files(tmp_path) == ["good.nc"]


# --- credentials


@pytest.mark.parametrize(
    ("url", "key", "sentence"),
    [
        (None, None, r"no credentials .*~/\.cdsapirc.*CDSAPI_KEY"),
        ("https://cds.climate.copernicus.eu/api", "12345:abc", "closed in 2024.*without a user id"),
        ("https://cds.climate.copernicus.eu/api/v2", TOKEN, "closed in 2024"),
        ("file:///etc", TOKEN, "not an http address"),
    ],
)
def test_credentials_that_cannot_work_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str | None, key: str | None, sentence: str
) -> None:
    if url and key:
        monkeypatch.setenv("CDSAPI_URL", url)
        monkeypatch.setenv("CDSAPI_KEY", key)
    config = source()
    with pytest.raises(ValueError, match=sentence):
        fetch_cds(cds_partitions(config)[0], config, tmp_path / "january.nc")
    assert files(tmp_path) == []


def test_a_wrong_token_is_one_sentence(server: CdsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CDSAPI_KEY", "expired")
    config = source()
    with pytest.raises(ValueError, match=r"Authentication failed.*current token into ~/\.cdsapirc"):
        fetch_cds(cds_partitions(config)[0], config, tmp_path / "january.nc")


def test_credentials_come_from_the_file_too(server: CdsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CDSAPI_URL")
    monkeypatch.delenv("CDSAPI_KEY")
    rc = tmp_path / "cdsapirc"
    rc.write_text(f"url: https://cds.climate.copernicus.eu/api\nkey: {TOKEN}\n")
    monkeypatch.setenv("CDSAPI_RC", str(rc))
    config = source(url=server.url)
    fetch_cds(cds_partitions(config)[0], config, tmp_path / "january.nc")
    assert len(server.submitted) == 1


# --- killed runs

FETCH = """
import sys
from pathlib import Path
from configs.weather import CdsSource
from tasks.era5.cds import cds_partitions, fetch_cds
config = CdsSource.model_validate_json(sys.argv[1])
fetch_cds(cds_partitions(config)[0], config, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_leaves_no_final_file(server: CdsServer, tmp_path: Path, end: signal.Signals) -> None:
    config, target = source(), tmp_path / "january.nc"
    server.stall = True
    child = subprocess.Popen(
        [sys.executable, "-c", FETCH, config.model_dump_json(), str(target)],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job is started deaf to it
    )
    try:
        assert server.stalled.wait(120)
        child.send_signal(end)
        assert child.wait(60) != 0
    finally:
        child.kill()
        server.stall = False
    assert not target.exists()
    if end == signal.SIGINT:
        assert files(tmp_path) == []
    fetch_cds(cds_partitions(config)[0], config, target)
    with xr.open_dataset(target) as data:
        assert data.sizes["valid_time"] == 4


def test_progress_is_logged(
    server: CdsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    config = source()
    with caplog.at_level("INFO", logger=cds.__name__):
        fetch_cds(cds_partitions(config)[0], config, tmp_path / "january.nc")
    assert any("successful" in record.getMessage() for record in caplog.records)
    assert capsys.readouterr().err == ""
