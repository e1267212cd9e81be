"""The generate stage: a picture from words, by OpenAI Images or by the built-in offline painter."""

import base64
import binascii
import io
import logging
import os
from typing import Annotated

import httpx2
from langchain_core.tools import ToolException, tool
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    DefaultHttpxClient,
    OpenAI,
    OpenAIError,
)
from PIL import Image, ImageOps
from pydantic import Field
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from tools.painter import paint
from tools.shared.files import refusal
from tools.shared.pictures import decode, flat, save_picture

MODEL = "gpt-image-2.5-flare"
TIMEOUT = 120.0  # seconds; the SDK's own default is 600
_SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))  # what every GPT image model takes
_MAX_BASE64 = 64 * 1024 * 1024

_log = logging.getLogger(__name__)


@tool(parse_docstring=True)
def generate_image(
    prompt: Annotated[str, Field(min_length=1, max_length=4000)],
    file: str,
    width: Annotated[int, Field(ge=256, le=2048)] = 1024,
    height: Annotated[int, Field(ge=256, le=2048)] = 1024,
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0,
) -> str:
    """Generate a new picture from a description.

    Args:
        prompt: What the picture shows, in plain words: subject or scene, time of day, weather,
            colours. 1 to 4000 characters.
        file: Where to write the picture; the suffix (.png, .jpg or .webp) chooses the format.
        width: Width in pixels, 256 to 2048.
        height: Height in pixels, 256 to 2048.
        seed: Pick another number to get another picture of the same description. OpenAI Images
            takes no seed; there every call gives another picture.
    """
    if not prompt.strip():
        raise refusal(
            "prompt is empty", got="only spaces", expected="a description", do="Say what to paint."
        )
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        with connect(key, os.environ.get("OPENAI_BASE_URL") or None) as client:
            picture = picture_from_openai(client, prompt, width, height)
        maker = f"OpenAI {MODEL}"
    else:
        picture = paint(prompt, width, height, seed)
        maker = "the offline painter"
    save_picture(picture, file)
    return f"Generated a {width}x{height} picture with {maker}."


def connect(api_key: str, base_url: str | None = None, *, timeout: float = TIMEOUT) -> OpenAI:
    """An OpenAI client that sends each request once and only to the host it was given.

    `timeout` is in seconds. The SDK's own retries are off, because it sends no idempotency key: a
    picture that was made and lost on the way back would be billed twice. Redirects are off,
    because a redirected POST carries the prompt to a host that nobody chose.
    """
    return OpenAI(
        api_key=api_key,
        base_url=base_url,
        timeout=timeout,
        max_retries=0,
        http_client=DefaultHttpxClient(follow_redirects=False),
    )


def picture_from_openai(
    client: OpenAI, prompt: str, width: int, height: int, *, attempts: int = 3
) -> Image.Image:
    """One picture from OpenAI Images, cut to exactly `width` x `height` pixels, as RGB.

    Tries up to `attempts` times, but only while no connection came about; whatever happens after
    the request was sent is final. Raises ToolException that never repeats prompt, key or answer.
    """
    w, h = min(_SIZES, key=lambda size: abs(size[0] / size[1] - width / height))
    again = Retrying(
        retry=retry_if_exception(_never_sent),
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=0.2, max=2.0),
        before_sleep=lambda state: _log.info(
            "OpenAI Images could not be reached, attempt %d", state.attempt_number
        ),
        reraise=True,
    )
    try:
        answer = again(client.images.generate, model=MODEL, prompt=prompt, size=f"{w}x{h}", n=1)
    except OpenAIError as error:
        raise _failure(error) from None
    encoded = answer.data[0].b64_json if answer.data else None
    if not encoded or len(encoded) > _MAX_BASE64:
        # A returned URL is not followed: fetching is another request, to another host.
        raise refusal(
            "OpenAI Images sent no usable picture",
            got="no base64 data, or too much of it",
            expected="one picture as b64_json",
            do="Try once more or tell the operator.",
        )
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise refusal(
            "OpenAI Images sent no usable picture",
            got="broken base64",
            expected="one picture as b64_json",
            do="Try once more or tell the operator.",
        ) from None
    picture = flat(decode(io.BytesIO(data), "the picture from OpenAI"))
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def _never_sent(error: BaseException) -> bool:
    """Whether a call failed before the vendor could have seen, made or billed anything."""
    return isinstance(error, APIConnectionError) and isinstance(
        error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout
    )


def _failure(error: OpenAIError) -> ToolException:
    if isinstance(error, APIStatusError):
        got = f"HTTP status {error.status_code}"
        advice = {
            400: "Reword the prompt; it may break the vendor's rules.",
            401: "Tell the operator: OPENAI_API_KEY is not accepted.",
            403: "Tell the operator: this key may not use the model.",
            429: "Wait before trying again, or tell the operator that the quota is used up.",
        }.get(error.status_code, "Tell the operator; the request is not repeated by itself.")
    elif _never_sent(error):
        got = "no connection"
        advice = "Nothing was sent. Tell the operator to look at the network or OPENAI_BASE_URL."
    elif isinstance(error, APITimeoutError | APIConnectionError):
        got = "no complete answer"
        advice = "A picture may have been made and billed; it is not asked for again by itself."
    else:
        got, advice = type(error).__name__, "Tell the operator."
    return refusal("OpenAI Images failed", got=got, expected="a picture", do=advice)
