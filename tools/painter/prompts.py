"""What the offline painter understands of a prompt: words choose scene, hour, weather, colour."""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np

Scene: TypeAlias = Literal[
    "sea", "mountains", "city", "forest", "desert", "hills", "bottle", "cup", "shoe", "abstract"
]
Hour: TypeAlias = Literal["dawn", "day", "golden", "dusk", "night"]
Weather: TypeAlias = Literal["clear", "cloudy", "mist", "rain", "snow", "storm"]
_Name = TypeVar("_Name", bound=str)

_SCENES: dict[Scene, str] = {
    "bottle": "bottle perfume fragrance cologne wine beer juice shampoo serum lotion olive oil gin "
    "whisky whiskey champagne soda cosmetic cosmetics product packaging",
    "cup": "coffee cup mug tea espresso latte cappuccino cocoa chocolate breakfast cafe café",
    "shoe": "shoe sneaker trainer footwear boot",
    "city": "city skyline town downtown street urban skyscraper tower building metropolis office "
    "harbour harbor bridge manhattan tokyo london",
    "sea": "sea ocean beach coast wave bay island sail sailing boat yacht surf lagoon lighthouse "
    "seaside shore",
    "desert": "desert dune sahara sand oasis camel canyon",
    "forest": "forest wood woodland pine tree jungle fir spruce grove woods cabin",
    "mountains": "mountain alp alpine peak summit ridge lake fjord glacier valley hike hiking ski",
    "hills": "hill field meadow farm vineyard countryside lavender flower garden grass prairie "
    "picnic spring wheat barley orchard park",
}
_HOURS: dict[Hour, str] = {
    "night": "night midnight moon moonlight moonlit star starry stars neon nocturnal",
    "golden": "sunset golden evening warm sundown autumn",
    "dusk": "dusk twilight purple violet",
    "dawn": "dawn sunrise morning daybreak pink pastel",
    "day": "day noon midday sunny bright summer blue daylight",
}
_WEATHERS: dict[Weather, str] = {
    "snow": "snow snowy winter snowfall blizzard christmas",
    "rain": "rain rainy drizzle wet",
    "storm": "storm stormy thunder thunderstorm dramatic",
    "mist": "mist misty fog foggy haze hazy moody",
    "cloudy": "cloud cloudy overcast",
    "clear": "clear cloudless sunny",
}
_COLOURS = {
    "red": "c8352b", "crimson": "a8203a", "orange": "e8772e", "amber": "e59a2b", "yellow": "e8c33a",
    "gold": "c99a3b", "green": "3f8f5a", "emerald": "1f8a63", "mint": "8fd0b4", "olive": "7c8442",
    "teal": "1f8a8c", "turquoise": "3bb8b4", "cyan": "3fb4d0", "blue": "2f6fc0", "navy": "22396f",
    "indigo": "41419c", "violet": "7a4fb5", "purple": "7a4fb5", "lavender": "a693d6",
    "magenta": "b8388a", "pink": "e58fb0", "rose": "d76d86", "coral": "ee7762", "peach": "f4b38d",
    "brown": "7d5138", "beige": "d8c3a1", "cream": "efe3cb", "white": "ece9e4", "silver": "b4b9c1",
    "grey": "8a8f98", "gray": "8a8f98", "black": "24262b",
}  # fmt: skip
_WATER = frozenset(
    ("lake", "fjord", "river", "bay", "harbour", "harbor", "reflection", "water", "pond", "coast")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A prompt as the painter understood it; `colour` is an sRGB code, `water` asks for a lake."""

    scene: Scene
    hour: Hour
    weather: Weather
    colour: str | None
    water: bool


def dice(prompt: str, seed: int) -> np.random.Generator:
    """The randomness of one picture: the same for the same words and seed, in any process."""
    name = f"{' '.join(prompt.lower().split())}\x00{seed}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:16], "big"))


def read(prompt: str, rng: np.random.Generator) -> Reading:
    """Choose what to paint from the words of a prompt; `rng` decides what they leave open."""
    words = re.findall(r"[^\W\d_]+", prompt.lower())
    stems = [form for word in words for form in _forms(word)]
    scene = _first(stems, _SCENES) or "abstract"
    weather: Weather = _first(stems, _WEATHERS) or ("cloudy" if rng.random() < 0.5 else "clear")
    hour = _first(stems, _HOURS)
    if hour is None:
        usual: tuple[Hour, ...] = ("golden", "day", "dusk", "dawn")
        if scene == "city":
            usual = ("night", "dusk", "golden")
        elif weather in ("rain", "storm", "snow"):
            usual = ("day", "dusk")
        hour = usual[int(rng.integers(len(usual)))]
    colour = next((_COLOURS[stem] for stem in stems if stem in _COLOURS), None)
    return Reading(
        scene=scene,
        hour=hour,
        weather=weather,
        colour=colour,
        water=not _WATER.isdisjoint(stems),
    )


def _forms(word: str) -> tuple[str, ...]:
    """The word and what it may be the plural of."""
    if word.endswith("ies"):
        return (word, word[:-3] + "y")
    if word.endswith("es"):
        return (word, word[:-1], word[:-2])
    return (word, word[:-1]) if word.endswith("s") and len(word) > 3 else (word,)


def _first(stems: list[str], table: dict[_Name, str]) -> _Name | None:
    """The entry of the table with a word in the prompt; earlier entries of the table win."""
    for name, words in table.items():
        if not set(words.split()).isdisjoint(stems):
            return name
    return None
