"""Names of ERA5 variables: as the Climate Data Store and ARCO-ERA5 write them out, and short as in GRIB files."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Era5Name(NamedTuple):
    """How NetCDF files from the Climate Data Store call a variable, and what one value of it stands for."""

    short: str
    step_type: Literal["instant", "accum", "max", "min"] = "instant"
    """`accum`: the sum over the hour that ends at the time; `max` and `min`: the extreme of that hour."""


ERA5_NAMES: dict[str, Era5Name] = {
    "100m_u_component_of_wind": Era5Name("u100"),
    "100m_v_component_of_wind": Era5Name("v100"),
    "10m_u_component_of_wind": Era5Name("u10"),
    "10m_v_component_of_wind": Era5Name("v10"),
    "10m_wind_gust_since_previous_post_processing": Era5Name("fg10", "max"),
    "2m_dewpoint_temperature": Era5Name("d2m"),
    "2m_temperature": Era5Name("t2m"),
    "boundary_layer_height": Era5Name("blh"),
    "convective_available_potential_energy": Era5Name("cape"),
    "convective_precipitation": Era5Name("cp", "accum"),
    "divergence": Era5Name("d"),
    "evaporation": Era5Name("e", "accum"),
    "fraction_of_cloud_cover": Era5Name("cc"),
    "geopotential": Era5Name("z"),
    "high_cloud_cover": Era5Name("hcc"),
    "large_scale_precipitation": Era5Name("lsp", "accum"),
    "low_cloud_cover": Era5Name("lcc"),
    "maximum_2m_temperature_since_previous_post_processing": Era5Name("mx2t", "max"),
    "mean_sea_level_pressure": Era5Name("msl"),
    "medium_cloud_cover": Era5Name("mcc"),
    "minimum_2m_temperature_since_previous_post_processing": Era5Name("mn2t", "min"),
    "potential_evaporation": Era5Name("pev", "accum"),
    "potential_vorticity": Era5Name("pv"),
    "relative_humidity": Era5Name("r"),
    "runoff": Era5Name("ro", "accum"),
    "sea_ice_cover": Era5Name("siconc"),
    "sea_surface_temperature": Era5Name("sst"),
    "skin_temperature": Era5Name("skt"),
    "snow_depth": Era5Name("sd"),
    "snowfall": Era5Name("sf", "accum"),
    "soil_temperature_level_1": Era5Name("stl1"),
    "specific_cloud_ice_water_content": Era5Name("ciwc"),
    "specific_cloud_liquid_water_content": Era5Name("clwc"),
    "specific_humidity": Era5Name("q"),
    "surface_latent_heat_flux": Era5Name("slhf", "accum"),
    "surface_net_solar_radiation": Era5Name("ssr", "accum"),
    "surface_net_thermal_radiation": Era5Name("str", "accum"),
    "surface_pressure": Era5Name("sp"),
    "surface_sensible_heat_flux": Era5Name("sshf", "accum"),
    "surface_solar_radiation_downwards": Era5Name("ssrd", "accum"),
    "surface_thermal_radiation_downwards": Era5Name("strd", "accum"),
    "temperature": Era5Name("t"),
    "toa_incident_solar_radiation": Era5Name("tisr", "accum"),
    "top_net_solar_radiation": Era5Name("tsr", "accum"),
    "top_net_thermal_radiation": Era5Name("ttr", "accum"),
    "total_cloud_cover": Era5Name("tcc"),
    "total_column_water_vapour": Era5Name("tcwv"),
    "total_precipitation": Era5Name("tp", "accum"),
    "total_sky_direct_solar_radiation_at_surface": Era5Name("fdir", "accum"),
    "u_component_of_wind": Era5Name("u"),
    "v_component_of_wind": Era5Name("v"),
    "vertical_velocity": Era5Name("w"),
    "volumetric_soil_water_layer_1": Era5Name("swvl1"),
    "vorticity": Era5Name("vo"),
}
