"""From statistics to sentences: thresholds that name an event, and the many ways to say it.

Each aspect of the weather is a function from the numbers to phrases that are all true of them; which phrase is
taken, and how many aspects are mentioned, is drawn from a hash of (seed, date, region).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.samples.weather_statistics import Values

WIND_WORDS = (
    (32.7, "hurricane-force winds"),
    (24.5, "storm-force winds"),
    (20.8, "severe gales"),
    (17.2, "gales"),
    (13.9, "near-gale winds"),
    (10.8, "strong winds"),
    (8.0, "fresh winds"),
    (5.5, "moderate winds"),
    (0.0, "light winds"),
)
"""By the highest 10 m wind in m/s: the Beaufort scale."""

RAIN_WORDS = (
    (80.0, "extreme rain"),
    (30.0, "heavy rain"),
    (10.0, "moderate rain"),
    (2.0, "light rain"),
    (0.2, "drizzle"),
)
"""By the largest day total at a point, mm; below the last it is called dry."""

SHOWER_WORDS = (
    (80.0, "torrential showers"),
    (30.0, "heavy showers"),
    (10.0, "showers"),
    (0.2, "light showers"),
)
"""The same when at least 60 % of it is convective."""

SNOW_WORDS = ((30.0, "heavy snow"), (10.0, "moderate snow"), (0.2, "light snow"))
"""The same (as water) when at least half of it falls below 0.5 degrees Celsius."""

HEAT_WORDS = ((40.0, "extreme heat"), (35.0, "great heat"), (30.0, "hot weather"))
"""By the highest temperature, degrees Celsius."""

COLD_WORDS = ((-20.0, "severe frost"), (-10.0, "hard frost"), (0.0, "frost"))
"""By the lowest temperature, degrees Celsius; the word applies below the number."""

SKY_WORDS = (
    (60.0, "mostly sunny skies"),
    (47.0, "sunny spells"),
    (33.0, "mostly cloudy skies"),
    (0.0, "overcast skies"),
)
"""By the share of the sunlight above the atmosphere that reached the ground, %."""

COMPASS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")

TROPICAL_CYCLONE = {"latitude": 32.0, "wind_max": 24.5, "msl_min": 1000.0}
"""A low at most this far from the equator, with at least this wind and at most this pressure."""


@dataclass(frozen=True, slots=True)
class Aspect:
    """One thing worth saying: how striking it is, and phrases for it that are equally true."""

    salience: float
    phrases: tuple[str, ...]


class Dice:
    """Choices that depend on a key alone."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.blake2b("|".join(map(str, key)).encode(), digest_size=8).digest()
        self._random = random.Random(int.from_bytes(digest, "big"))

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1."""
        return int(self._random.random() * count)

    def pick(self, options: Sequence[str]) -> str:
        """One of the options."""
        return options[self.below(len(options))]


def word(table: Sequence[tuple[float, str]], value: float) -> str:
    """The first word of a descending table whose threshold `value` reaches."""
    return next((name for threshold, name in table if value >= threshold), table[-1][1])


def degrees(value: float) -> str:
    """`degrees(-0.3)` => "0 °C"."""
    return f"{round(value)} °C"


def place(latitude: float, longitude: float) -> str:
    """`place(54.0, -3.5)` => "54.0°N 3.5°W"."""
    north_south, east_west = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.1f}°{north_south} {abs(longitude):.1f}°{east_west}"


def compass(value: float) -> str:
    """`compass(225.0)` => "south-west"."""
    return COMPASS[round(value / 45) % 8]


def _temperature(v: Values) -> Aspect:
    high, low, mean = degrees(v["t_max"]), degrees(v["t_min"]), degrees(v["t_mean"])
    if v["t_max"] >= HEAT_WORDS[-1][0]:
        heat = word(HEAT_WORDS, v["t_max"])
        return Aspect(
            1.0 + (v["t_max"] - 30) / 5,
            (
                f"{heat} with a maximum of {high}",
                f"{heat}: temperatures climbed to {high} and nowhere fell below {low}",
                f"temperatures reached {high} in {heat}",
                f"{heat}, {high} at the hottest place and {mean} on average",
            ),
        )
    if v["t_min"] < 0:
        cold = next(name for threshold, name in COLD_WORDS if v["t_min"] < threshold)
        return Aspect(
            0.5 - v["t_min"] / 12,
            (
                f"{cold} with a minimum of {low}",
                f"{cold} down to {low}, a maximum of {high}",
                f"temperatures between {low} and {high} with {cold} in places",
                f"the thermometer fell to {low} ({cold}); the mean was {mean}",
            ),
        )
    return Aspect(
        0.6,
        (
            f"temperatures between {low} and {high}",
            f"a mean temperature of {mean}, with a maximum of {high}",
            f"highs of {high} and lows of {low}",
            f"temperatures around {mean}",
        ),
    )


def _wind(v: Values) -> Aspect:
    peak, name = v["wind_max"], word(WIND_WORDS, v["wind_max"])
    metres, kilometres, mean = f"{peak:.0f} m/s", f"{3.6 * peak:.0f} km/h", f"{v['wind_mean']:.1f} m/s"
    if peak < WIND_WORDS[-2][0]:
        return Aspect(
            0.9,
            (
                f"calm, with winds of no more than {metres}",
                f"hardly any wind, {mean} on average",
                f"light winds of at most {kilometres}",
            ),
        )
    phrases: tuple[str, ...] = (
        f"{name} reaching {kilometres}",
        f"{name}, at most {metres}",
        f"{name}, {kilometres} at the peak and {mean} on average",
    )
    if "wind_from" in v:
        side = compass(v["wind_from"])
        phrases += (
            f"{name} of up to {metres} from the {side}",
            f"{name} from the {side}, {kilometres} at the peak and {mean} on average",
            f"mainly {side} winds, {metres} at most",
        )
    return Aspect(0.4 + max(0.0, peak - 8) / 5, phrases)


def _rain(v: Values) -> Aspect:
    most = v["rain_max"]
    if most < RAIN_WORDS[-1][0]:
        return Aspect(0.7, ("dry weather", "no rain worth mentioning", "it stayed dry", "a dry day"))
    name, mixed = _precipitation(v)
    amount = f"{most:.1f} mm" if most < 10 else f"{most:.0f} mm"
    spread = "widespread" if v["wet_share"] >= 60 else "local" if v["wet_share"] < 20 else "regional"
    phrases: tuple[str, ...] = (
        f"{name} with up to {amount}{mixed}",
        f"up to {amount} of precipitation ({name}{mixed})",
        f"{spread} {name}{mixed}, {amount} in places",
    )
    if v["wet_share"] >= 2:
        phrases += (
            f"{spread} {name}: {amount} at the wettest place, {v['rain_mean']:.1f} mm on average{mixed}",
            f"{name}, at most {amount}, with 1 mm or more on {v['wet_share']:.0f}% of the area{mixed}",
        )
    return Aspect(0.5 + most / 15 + v["wet_share"] / 100, phrases)


def _precipitation(v: Values) -> tuple[str, str]:
    """The word for what falls, and a remark when part of it is snow."""
    if v["snow_share"] >= 50:
        return word(SNOW_WORDS, v["rain_max"]), ""
    mixed = ", partly as snow" if v["snow_share"] >= 10 else ""
    return word(SHOWER_WORDS if v["convective_share"] >= 60 else RAIN_WORDS, v["rain_max"]), mixed


def _pressure(v: Values) -> Aspect:
    low, high = f"{v['msl_min']:.0f} hPa", f"{v['msl_max']:.0f} hPa"
    where = place(v["msl_min_latitude"], v["msl_min_longitude"])
    if _is_tropical_cyclone(v):
        wind = f"{3.6 * v['wind_max']:.0f} km/h"
        return Aspect(
            9.0,
            (
                f"a tropical cyclone of {low} near {where} with winds of {wind}",
                f"a tropical cyclone brought winds of {wind}, with a lowest pressure of {low} near {where}",
            ),
        )
    if v["msl_min"] < 1000:
        kind = "a very deep low" if v["msl_min"] < 975 else "a deep low" if v["msl_min"] < 988 else "low pressure"
        return Aspect(
            0.6 + (1000 - v["msl_min"]) / 8,
            (
                f"{kind} with {low} near {where}",
                f"pressure fell as low as {low} near {where}",
                f"{kind}, {low} at its lowest",
                f"{kind} near {where} ({low})",
            ),
        )
    if v["msl_max"] >= 1024:
        kind = "a strong high" if v["msl_max"] >= 1034 else "high pressure"
        return Aspect(
            0.6 + (v["msl_max"] - 1024) / 8,
            (f"{kind} of up to {high}", f"{kind} in control ({high})", f"pressure as high as {high}"),
        )
    return Aspect(0.2, (f"pressure between {low} and {high}", f"a mean pressure of {v['msl_mean']:.0f} hPa"))


def _is_tropical_cyclone(v: Values) -> bool:
    return (
        abs(v["msl_min_latitude"]) <= TROPICAL_CYCLONE["latitude"]
        and v["wind_max"] >= TROPICAL_CYCLONE["wind_max"]
        and v["msl_min"] <= TROPICAL_CYCLONE["msl_min"]
    )


def _temperature_trend(v: Values) -> Aspect | None:
    change = v.get("t_change", 0.0)
    if abs(change) < 1.5:
        return None
    by = f"{abs(change):.1f} degrees"
    if change > 0:
        phrases = [f"{by} warmer than the day before", f"warming by {by} since the previous day"]
        phrases += ["a marked warming"] if change >= 4 else ["warmer than the day before"]
    else:
        phrases = [f"{by} colder than the day before", f"a fall of {by} since the previous day"]
        phrases += ["a sharp cooling"] if change <= -4 else ["colder than the day before"]
    return Aspect(abs(change) / 2.5, tuple(phrases))


def _pressure_trend(v: Values) -> Aspect | None:
    change = v.get("msl_change", 0.0)
    if abs(change) < 4:
        return None
    by, verb = f"{abs(change):.0f} hPa", "rose" if change > 0 else "fell"
    return Aspect(
        abs(change) / 8,
        (
            f"pressure {verb} by {by} since the day before",
            f"{'rising' if change > 0 else 'falling'} pressure ({by} in a day)",
        ),
    )


def _sky(v: Values) -> Aspect | None:
    if "clearness" not in v:
        return Aspect(0.1, ("hardly any daylight", "polar night or close to it"))
    name = word(SKY_WORDS, v["clearness"])
    sunlight = f"{v['clearness']:.0f}% of the sun's radiation reached the ground"
    return Aspect(0.5, (name, f"{name} overall", f"{name}; {sunlight}"))


def _fog(v: Values) -> Aspect | None:
    if v["fog_share"] < 10:
        return None
    share = f"{v['fog_share']:.0f}%"
    return Aspect(
        0.5 + v["fog_share"] / 40,
        ("mist or fog in calm, saturated air", f"damp and misty, with fog-like conditions {share} of the time"),
    )


def _sea(v: Values) -> Aspect | None:
    if "sea_mean" not in v:
        return None
    sea = degrees(v["sea_mean"])
    return Aspect(0.0, (f"a sea surface of {sea}", f"the sea at {sea}"))


_ASPECTS: tuple[Callable[[Values], Aspect | None], ...] = (
    _temperature,
    _wind,
    _rain,
    _pressure,
    _temperature_trend,
    _pressure_trend,
    _sky,
    _fog,
    _sea,
)


def describe(values: Values, dice: Dice) -> str:
    """One to five phrases about a region's day, the most striking first; every number is one of `values`."""
    aspects = [aspect for aspect in (make(values) for make in _ASPECTS) if aspect]
    ranked = sorted(aspects, key=lambda aspect: -aspect.salience)
    count = (1, 2, 2, 3, 3, 4, 5)[dice.below(7)]
    chosen = ranked[: (count + 1) // 2]
    rest = ranked[len(chosen) :]
    while len(chosen) < count and rest:
        chosen.append(rest.pop(dice.below(len(rest))))
    phrases = [dice.pick(aspect.phrases) for aspect in chosen]
    glue = dice.pick(("; ", ". "))
    if glue == ". ":
        phrases = [phrase[0].upper() + phrase[1:] for phrase in phrases]
    text = glue.join(phrases)
    return text[0].upper() + text[1:] + "."
