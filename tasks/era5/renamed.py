"""Variables that the Climate Data Store has renamed: files of different years call them differently."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tasks.era5.catalog import Member, Variable

NEWER_NAMES: Mapping[str, str] = {
    "10u": "u10",
    "10v": "v10",
    "100u": "u100",
    "100v": "v100",
    "2d": "d2m",
    "2t": "t2m",
    "mbld": "avg_ibld",
    "mcpr": "avg_cpr",
    "mcsr": "avg_csfr",
    "megwss": "avg_iegwss",
    "mer": "avg_ie",
    "metss": "avg_iews",
    "mgwd": "avg_igwd",
    "mlspf": "avg_ilspf",
    "mlspr": "avg_lsprate",
    "mlssr": "avg_lssfr",
    "mngwss": "avg_ingwss",
    "mntss": "avg_inss",
    "mper": "avg_pevr",
    "mror": "avg_rorwe",
    "msdrswrf": "avg_sdirswrf",
    "msdrswrfcs": "avg_sdirswrfcs",
    "msdwlwrf": "avg_sdlwrf",
    "msdwlwrfcs": "avg_sdlwrfcs",
    "msdwswrf": "avg_sdswrf",
    "msdwswrfcs": "avg_sdswrfcs",
    "msdwuvrf": "avg_sduvrf",
    "mser": "avg_esrwe",
    "mslhf": "avg_slhtf",
    "msmr": "avg_smr",
    "msnlwrf": "avg_snlwrf",
    "msnlwrfcs": "avg_snlwrfcs",
    "msnswrf": "avg_snswrf",
    "msnswrfcs": "avg_snswrfcs",
    "msr": "avg_tsrwe",
    "msror": "avg_surfror",
    "mssror": "avg_ssurfror",
    "msshf": "avg_ishf",
    "mtdwswrf": "avg_tdswrf",
    "mtnlwrf": "avg_tnlwrf",
    "mtnlwrfcs": "avg_tnlwrfcs",
    "mtnswrf": "avg_tnswrf",
    "mtnswrfcs": "avg_tnswrfcs",
    "mtpr": "avg_tprate",
    "mvimd": "avg_vimdf",
}


def names_to_use(members: Iterable[Member], asked: Collection[str]) -> dict[str, str]:
    """Return by what names variables go where files, or files and recipe, use both names of one: `{old: new}` or back.

    The recipe's name counts, else the newer one; where all use one name, nothing is renamed.
    """
    held = {variable.name for member in members for variable in member.variables}
    used: dict[str, str] = {}
    for old, new in NEWER_NAMES.items():
        if old in asked and new in asked:
            continue
        if old in asked and new in held:
            used[new] = old
        elif old in held and (new in asked or new in held):
            used[old] = new
    return used


def renamed(member: Member, used: Mapping[str, str]) -> Member:
    """Return a member whose variables go by these names; one that holds both keeps both as they are."""
    held = {variable.name for variable in member.variables}

    def called(variable: Variable) -> Variable:
        name = used.get(variable.name)
        if name is None or name in held:
            return variable
        return variable.model_copy(update={"name": name, "stored_as": variable.name})

    if held.isdisjoint(used):
        return member
    return member.model_copy(update={"variables": tuple(map(called, member.variables))})
