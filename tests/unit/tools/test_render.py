import http.server
import logging
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tools import BaseTool, ToolException
from PIL import Image
from pydantic import ValidationError

from tools.render import render_video, thumbnail, transcode

Make = Callable[..., str]


def frames_of(file: str) -> list[np.ndarray]:
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_stills_become_an_h264_video_of_the_promised_length(picture: Make, tmp_path: Path) -> None:
    file = str(tmp_path / "out.mp4")
    stills = [picture(f"{at}.png", shift=90 * at) for at in range(3)]
    render_video.invoke(
        {"stills": stills, "file": file, "seconds_each": 1, "width": 320, "height": 180, "fps": 12}
    )
    with av.open(file) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, stream.width, stream.height) == (
            "h264",
            "yuv420p",
            320,
            180,
        )
        assert stream.average_rate == 12
        assert container.duration == 3_000_000
        assert (codec.colorspace, codec.color_range) == (1, 1)
        times = [frame.time for frame in container.decode(stream)]
    assert times == pytest.approx([at / 12 for at in range(36)], abs=1e-4)
    data = Path(file).read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")


def test_the_colours_of_a_still_survive(tmp_path: Path) -> None:
    still, file = str(tmp_path / "in.png"), str(tmp_path / "out.mp4")
    Image.new("RGB", (320, 180), (200, 60, 30)).save(still)
    render_video.invoke(
        {"stills": [still], "file": file, "seconds_each": 0.5, "width": 320, "height": 180}
    )
    with av.open(file) as container:
        frame = next(container.decode(video=0))
        colour = frame.to_ndarray(format="rgb24", src_colorspace="ITU709").mean(axis=(0, 1))
    assert colour == pytest.approx((200, 60, 30), abs=4)


def test_the_camera_moves_smoothly_and_shots_crossfade(picture: Make, tmp_path: Path) -> None:
    file = str(tmp_path / "out.mp4")
    black, white = (str(tmp_path / f"{name}.png") for name in ("black", "white"))
    Image.new("RGB", (320, 180), "black").save(black)
    Image.new("RGB", (320, 180), "white").save(white)
    size = {"width": 320, "height": 180, "fps": 24}
    render_video.invoke({"stills": [black, white], "file": file, "seconds_each": 1, **size})
    levels = [float(frame.mean()) for frame in frames_of(file)]
    assert levels[10] < 5
    assert levels[-10] > 250
    assert all(after - before < 40 for before, after in pairwise(levels))
    assert sum(20 < level < 235 for level in levels) >= 8

    render_video.invoke({"stills": [picture()], "file": file, "seconds_each": 2, **size})
    shots = frames_of(file)
    steps = [float(np.abs(a.astype(int) - b).mean()) for a, b in pairwise(shots)]
    assert min(steps) > 0.05  # it never stands still
    assert max(steps) < 6 * float(np.median(steps))  # it never jumps


def test_six_seconds_of_720p_have_144_frames(picture: Make, tmp_path: Path) -> None:
    stills = [picture(f"{at}.png", 1600, 900, shift=90 * at) for at in range(2)]
    render_video.invoke({"stills": stills, "file": str(tmp_path / "out.mp4")})
    assert len(frames_of(str(tmp_path / "out.mp4"))) == 144


def test_progress_is_logged_and_reaches_the_callbacks_of_a_run(
    picture: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = []

    class Listener(BaseCallbackHandler):
        def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
            events.append((name, data))

    caplog.set_level(logging.INFO, "tools")
    call = {
        "stills": [picture()],
        "file": str(tmp_path / "out.mp4"),
        "seconds_each": 2,
        "width": 128,
        "height": 72,
        "fps": 10,
    }
    render_video.invoke(call, config={"callbacks": [Listener()]})
    expected = [("render_video", {"done": done, "total": 20}) for done in (10, 20)]
    assert events == expected
    assert "render_video: frame 20 of 20" in caplog.messages
    tool: Any = render_video
    tool.func(**call)  # outside any run: nothing to report to, nothing fails


def test_transcode_fits_the_whole_picture_and_keeps_the_sound(video: Make, tmp_path: Path) -> None:
    file = str(tmp_path / "out.mp4")
    source = video(sound=True, metadata={"location": "+48.85+002.35/", "comment": "secret"})
    said = transcode.invoke({"source": source, "width": 400, "height": 200, "file": file})
    assert said == "Converted to 400x200, 2.5 s at 12 fps, with sound."
    with av.open(file) as container:
        heard = sum(frame.samples for frame in container.decode(audio=0))
        assert heard / 48_000 == pytest.approx(2.5, abs=0.1)
    shots = frames_of(file)
    assert len(shots) == 30
    assert shots[0].shape == (200, 400, 3)
    assert shots[0][:, :60].mean() < 4  # 4:3 in 2:1 leaves bars
    assert shots[0][:, 180:220].mean() > 60
    data = Path(file).read_bytes()
    assert b"secret" not in data
    assert b"+48.85" not in data


def test_a_video_filmed_sideways_is_turned_upright(video: Make, tmp_path: Path) -> None:
    source = Path(video(frames=[half_red(320, 240)] * 12))
    data = bytearray(source.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 40
    one = (1 << 16).to_bytes(4, "big", signed=True)
    minus = (-(1 << 16)).to_bytes(4, "big", signed=True)
    zero = bytes(4)
    # x' = -y, y' = x: what a phone writes for a quarter turn clockwise.
    data[matrix : matrix + 20] = zero + one + zero + minus + zero
    source.write_bytes(data)
    out, still = str(tmp_path / "out.mp4"), str(tmp_path / "out.png")
    transcode.invoke({"source": str(source), "width": 240, "height": 320, "file": out})
    thumbnail.invoke({"source": str(source), "second": 0.2, "file": still})
    with Image.open(still) as picture:
        upright = np.asarray(picture.convert("RGB"), int)
    for shot in (frames_of(out)[3].astype(int), upright):
        assert shot.shape == (320, 240, 3)
        assert shot[80, 120, 0] > 150  # the left half of the frame is now on top
        assert shot[240, 120, 0] < 60


def half_red(width: int, height: int) -> Image.Image:
    picture = Image.new("RGB", (width, height), "black")
    picture.paste((220, 20, 20), (0, 0, width // 2, height))
    return picture


@pytest.mark.parametrize(("second", "shown"), [(0, 0), (0.99, 0), (1.0, 1), (1.6, 1), (2.9, 2)])
def test_thumbnail_shows_the_frame_on_screen_at_that_second(
    second: float, shown: int, video: Make, tmp_path: Path
) -> None:
    tones = [(220, 40, 40), (40, 220, 40), (40, 40, 220)]
    frames = [Image.new("RGB", (320, 240), tone) for tone in tones for _ in range(10)]
    file = str(tmp_path / "out.png")
    thumbnail.invoke({"source": video(frames=frames, fps=10), "second": second, "file": file})
    with Image.open(file) as picture:
        picture.load()
        assert picture.size == (320, 240)
        assert np.asarray(picture).mean(axis=(0, 1)).argmax() == shown


def test_a_second_behind_the_end_is_refused(video: Make, tmp_path: Path) -> None:
    with pytest.raises(ToolException, match=r"less than 2\.50 s"):
        thumbnail.invoke({"source": video(), "second": 2.5, "file": str(tmp_path / "out.png")})
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("tool", "rest"),
    [(transcode, {"width": 64, "height": 64}), (thumbnail, {"second": 0})],
    ids=["transcode", "thumbnail"],
)
@pytest.mark.parametrize("kind", ["text", "truncated", "sound only", "missing"])
def test_bad_videos_are_refused_and_leave_no_output(
    tool: BaseTool, rest: dict[str, Any], kind: str, video: Make, tmp_path: Path
) -> None:
    source = tmp_path / "bad.mp4"
    if kind == "text":
        source.write_text("hello" * 999)
    elif kind == "truncated":
        source.write_bytes(Path(video("whole.mp4")).read_bytes()[:4000])
    elif kind == "sound only":
        with av.open(str(source), "w", format="mp4") as out:
            audio = out.add_stream("aac", rate=44_100, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 44_100
            out.mux(audio.encode(frame))
            out.mux(audio.encode())
    file = tmp_path / ("out.mp4" if tool is transcode else "out.png")
    before = set(tmp_path.iterdir())
    with pytest.raises(ToolException):
        tool.invoke({"source": str(source), "file": str(file), **rest})
    assert set(tmp_path.iterdir()) == before


def test_a_playlist_posing_as_a_video_reads_and_fetches_nothing(tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/steal.ts"
        lists = {
            "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n",
            "concat.mp4": f"ffconcat version 1.0\nfile '{address}'\n",
            "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 9 RTP/AVP 96\n",
        }
        for name, text in lists.items():
            source = tmp_path / name
            source.write_text(text)
            with pytest.raises(ToolException, match="cannot be decoded"):
                thumbnail.invoke(
                    {"source": str(source), "second": 0, "file": str(tmp_path / "out.png")}
                )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == []


def test_a_bad_still_is_named_before_anything_is_encoded(picture: Make, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(ToolException, match=r"stills\[1\] is not a picture"):
        render_video.invoke(
            {"stills": [picture("good.png"), str(bad)], "file": str(tmp_path / "out.mp4")}
        )
    assert {path.name for path in tmp_path.iterdir()} == {"good.png", "bad.png"}


def test_a_video_too_long_or_named_wrong_is_refused(picture: Make, tmp_path: Path) -> None:
    still = picture()
    with pytest.raises(ToolException, match=r"expected \.mp4"):
        render_video.invoke({"stills": [still], "file": str(tmp_path / "out.avi")})
    with pytest.raises(ToolException, match="too large"):
        render_video.invoke(
            {
                "stills": [still],
                "file": str(tmp_path / "out.mp4"),
                "width": 3840,
                "height": 3840,
            }
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"stills": []},
        {"width": 321},
        {"height": 32},
        {"fps": 0},
        {"seconds_each": 0},
        {"seconds_each": float("inf")},
    ],
)
def test_arguments_out_of_range_are_refused(
    wrong: dict[str, Any], picture: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError):
        render_video.invoke({"stills": [picture()], "file": str(tmp_path / "out.mp4"), **wrong})
