import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.generate import generate_image
from tools.painter import paint
from tools.painter.prompts import dice, read
from tools.review import review_media

ROOT = Path(__file__).parents[3]
PROMPTS = [
    "calm sea at sunset",
    "mountain lake at dawn",
    "city skyline at night",
    "misty forest in the morning",
    "desert dunes at noon",
    "lavender fields in summer",
    "a green perfume bottle",
    "coffee in a cup",
    "red sneakers",
    "growth and trust",
]


def digest(picture: Image.Image) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


def test_the_same_prompt_size_and_seed_give_the_same_pixels_in_another_process() -> None:
    code = (
        "import hashlib; from tools.painter import paint; "
        "print(hashlib.sha256(paint('Snowy  forest', 320, 256, 7).tobytes()).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "12345", "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest(paint("snowy forest", 320, 256, 7))


def test_other_words_give_other_pictures() -> None:
    assert len({digest(paint(prompt, 256, 256, 0)) for prompt in PROMPTS}) == len(PROMPTS)


def test_another_seed_gives_another_picture() -> None:
    assert digest(paint("sea", 256, 256, 1)) != digest(paint("sea", 256, 256, 2))


def test_night_is_darker_than_day() -> None:
    night, day = (
        np.asarray(paint(f"mountains at {hour}", 256, 256, 0).convert("L")).mean()
        for hour in ("night", "noon")
    )
    assert night < 0.5 * day


@pytest.mark.parametrize(
    ("colour", "channel"), [("red", 0), ("green", 1), ("blue", 2)], ids=["red", "green", "blue"]
)
def test_a_colour_word_colours_the_product(colour: str, channel: int) -> None:
    picture = np.asarray(paint(f"{colour} sneaker in a studio", 256, 256, 0), float)
    upper = picture[135:170, 80:120].mean(axis=(0, 1))  # the side of the shoe
    assert upper.argmax() == channel


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [
        ("Beaches of Crete", "sea"),
        ("our new running SHOES by the sea", "shoe"),
        ("downtown", "city"),
        ("cities of light", "city"),
        ("", "abstract"),
        ("quarterly synergy", "abstract"),
    ],
)
def test_words_choose_the_scene(prompt: str, scene: str) -> None:
    assert read(prompt, dice(prompt, 0)).scene == scene


@pytest.mark.parametrize("size", [(256, 256), (256, 2048), (2048, 256), (257, 391)])
def test_every_scene_paints_at_every_shape(size: tuple[int, int]) -> None:
    for prompt in (*PROMPTS, "rainy city", "stormy sea", "snowy hills", "foggy lake by moonlight"):
        assert paint(prompt, *size, 3).size == size


def test_a_megapixel_takes_little_more_than_a_second() -> None:
    paint("sea", 256, 256, 0)  # imports and page faults are not the painter's
    before = time.process_time()
    paint("mountain lake in the snow at night", 1024, 1024, 0)
    assert time.process_time() - before < 3  # 0.5 s on an idle core; slack for a busy one


@pytest.mark.parametrize("prompt", PROMPTS)
def test_paintings_pass_review(prompt: str, tmp_path: Path) -> None:
    file = str(tmp_path / "out.png")
    said = generate_image.invoke({"prompt": prompt, "file": file, "width": 640, "height": 480})
    assert said == "Generated a 640x480 picture with the offline painter."
    with Image.open(file) as picture:
        picture.load()
        assert (picture.size, picture.format, picture.info) == ((640, 480), "PNG", {})
    assert "clean" in review_media.invoke({"source": file})
