"""The channels of the store: what the recipe asks for, checked against what the files hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from configs.weather import Recipe, VariableRecipe
from tasks.era5.catalog import Member, Variable
from tasks.era5.cf_units import same_unit

_KINDS = (
    "`hourly`: each value holds the last hour (ERA5); `since_00utc`: everything since 00 UTC (ERA5-Land), or a whole "
    "day's (monthly means); `mean_rate`: already a rate"
)
DAILY_MEAN = "avgad"
"""`GRIB_stepType` of a month's mean of daily totals, as the Climate Data Store has it of accumulated variables."""

NamedMember = tuple[str, Member]


@dataclass(frozen=True, slots=True)
class Channel:
    """One plane per time step: a variable, on one pressure level or none."""

    name: str
    """`u10`, or `t@850` on a pressure level."""
    variable: str
    level: int | None
    units: str
    """Units of the stored values."""
    recipe: VariableRecipe
    units_in_files: str
    step_type: str | None = None
    """`GRIB_stepType` of the files."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """Everything the files say about one variable, and which file says it."""

    holders: list[tuple[str, Variable]]

    def levels(self) -> list[int | None]:
        """Single level first, then pressures from the ground up."""
        found = {level for _, variable in self.holders for level in variable.levels or (None,)}
        return sorted(found, key=lambda level: -9999 if level is None else -level)

    def agreed(self, attribute: str) -> str | None:
        """Return the value of an attribute that all files with it share; `ValueError` names two that differ."""
        marked = [(name, value) for name, v in self.holders if (value := getattr(v, attribute))]
        for name, value in marked:
            if value != marked[0][1]:
                self._differ(attribute, marked[0], (name, value))
        return marked[0][1] if marked else None

    def agreed_unit(self) -> str:
        """Return the unit of all files, however each writes it; one that does not tell it is not taken for the same."""
        first, *others = [(name, variable.units) for name, variable in self.holders]
        for other in others:
            if not same_unit(first[1], other[1]):
                self._differ("units", first, other)
        return first[1]

    def require_one_kind(self) -> None:
        """Refuse files that say different things of how their values came about, or where in the air they are."""
        first, *others = [(name, variable.cell_method) for name, variable in self.holders]
        for other in others:
            if other[1] != first[1]:
                self._differ("cell methods", first, other)
        for coordinate in sorted({key for _, variable in self.holders for key, _ in variable.selected}):
            values = [(name, dict(v.selected).get(coordinate)) for name, v in self.holders]
            told = [(name, value) for name, value in values if value is not None]
            for entry in told:
                if entry[1] != told[0][1]:
                    self._differ(coordinate, told[0], entry)

    def _differ(self, what: str, first: tuple[str, object], other: tuple[str, object]) -> NoReturn:
        """Raise a `ValueError` that names two files and what they say."""
        one, two = ("none" if value == "" else repr(value) for _, value in (first, other))
        raise ValueError(
            f"{self.holders[0][1].name} has the {what.replace('_', ' ')} {one} in {first[0]} but {two} in {other[0]}; "
            f"convert one of them or leave it out"
        )


def resolve_channels(members: Sequence[NamedMember], recipe: Recipe, left_out: Sequence[str] = ()) -> list[Channel]:
    """Return the channels in store order; an empty recipe means every variable of the files, sorted by name.

    `left_out` says of parts of files why they cannot be used.
    """
    offers: dict[str, _Offer] = {}
    for name, member in members:
        for variable in member.variables:
            offers.setdefault(variable.name, _Offer([])).holders.append((name, variable))
    wanted = recipe.variables or tuple(VariableRecipe(variable=name) for name in sorted(offers))
    for entry in wanted:
        if entry.variable not in offers:
            why = [note for note in left_out if re.search(rf"\b{re.escape(entry.variable)}\b", note)]
            usable = f"no file has a usable {entry.variable}: {why[0]}" if why else f"no file has {entry.variable}"
            raise ValueError(f"recipe.variables: {usable}; they have {', '.join(sorted(offers))}")
    _require_accumulations(wanted, offers)
    return [channel for entry in wanted for channel in _channels_of(entry, offers[entry.variable])]


def _channels_of(recipe: VariableRecipe, offer: _Offer) -> list[Channel]:
    available = offer.levels()
    wanted: Sequence[int | None] = available if recipe.levels is None else recipe.levels
    for level in wanted:
        if level not in available:
            described = ", ".join("a single level" if a is None else f"{a} hPa" for a in available)
            raise ValueError(
                f"recipe.variables: no file has {recipe.variable} on {level} hPa; it is there on {described}"
            )
    offer.require_one_kind()
    name, told, step_type = recipe.variable, offer.agreed_unit(), offer.agreed("step_type")
    units = _stored_units(told, recipe)
    return [Channel(name if lv is None else f"{name}@{lv}", name, lv, units, recipe, told, step_type) for lv in wanted]


def _stored_units(units: str, recipe: VariableRecipe) -> str:
    if not recipe.rate or recipe.accumulation == "mean_rate":
        return units
    if same_unit(units, "J m**-2"):
        return "W m**-2"
    return f"{units} s**-1".strip()


def _require_accumulations(wanted: Sequence[VariableRecipe], offers: dict[str, _Offer]) -> None:
    """Check that the recipe says what accumulated values hold, and says it of accumulated variables only."""
    kinds = {entry.variable: offers[entry.variable].agreed("step_type") for entry in wanted}
    silent = [e.variable for e in wanted if kinds[e.variable] == "accum" and e.accumulation is None]
    if silent:
        examples = ", ".join(f"{{variable: {name}, accumulation: hourly}}" for name in silent)
        verb = "is" if len(silent) == 1 else "are"
        raise ValueError(
            f"{', '.join(silent)} {verb} accumulated, and files do not tell over which time: list the variables in "
            f"recipe.variables with e.g. {examples} ({_KINDS})"
        )
    for entry in wanted:
        if entry.rate and entry.accumulation is None:
            raise ValueError(f"recipe.variables: {entry.variable} has rate but no accumulation; add one ({_KINDS})")
        if entry.accumulation in ("hourly", "since_00utc") and kinds[entry.variable] == "instant":
            raise ValueError(
                f"recipe.variables: {entry.variable} is instantaneous in {offers[entry.variable].holders[0][0]}; "
                f"drop its accumulation {entry.accumulation}"
            )
        if entry.accumulation == "hourly" and kinds[entry.variable] == DAILY_MEAN:
            raise ValueError(
                f"recipe.variables: {entry.variable} is a mean of daily totals in "
                f"{offers[entry.variable].holders[0][0]}, not hourly; declare accumulation: since_00utc"
            )
