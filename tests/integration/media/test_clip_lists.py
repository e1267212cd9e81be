"""In the wild: nested clip lists, an output path that the model chooses, errors told as text."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from tests.support import KIM
from tests.support.bindings import Binding
from tests.support.desk import Desk, desk, mp4, rows


class Clip(BaseModel):
    """One piece of the film."""

    source: str = Field(description="path of the clip")
    start: float = 0.0
    end: float | None = None


got: list[str] = []


@tool
def assemble(clips: list[Clip], output_path: str = "film.mp4", fps: int = 12) -> str:
    """Cut clips together and write the film to output_path."""
    got.append(output_path)
    try:
        with av.open(output_path, "w") as film:
            stream = film.add_stream("mpeg4", rate=fps)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            count = 0
            for clip in clips:
                if clip.end is not None and clip.end < clip.start:
                    return f"Error: clip {clip.source} ends before it starts"
                with av.open(clip.source) as source:
                    for frame in source.decode(video=0):
                        if frame.time is None or frame.time < clip.start:
                            continue
                        if clip.end is not None and frame.time > clip.end:
                            break
                        frame.pts, frame.time_base = count, Fraction(1, fps)
                        count += 1
                        film.mux(stream.encode(frame))
            film.mux(stream.encode(None))
    except Exception as error:
        return f"Error: {error}"
    return f"Film saved to {output_path}"


@tool
def give_up(clips: list[Clip], output_path: str = "film.mp4") -> str:
    """Cut clips together; tells its errors as text, and says it worked."""
    return f"Success! Film saved to {output_path}"


def bind(at: Desk) -> Desk:
    meaning: dict[str, Any] = {"stage": "render", "assets": ["clips[].source"],
                               "outputs": {"output_path": ".mp4"}}  # fmt: skip
    times = ["clips[].start", "clips[].end"]
    return at.bind(Binding(assemble, plain=[*times, "fps"], **meaning),
                   Binding(give_up, plain=times, **meaning))  # fmt: skip


def test_nested_clips_come_as_private_files_and_the_path_is_the_guards(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        bind(at)
        files = {}
        for name in ("navy", "red"):
            files[name] = tmp_path / f"{name}.mp4"
            files[name].write_bytes(mp4(name, 12))
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            first = job.import_asset(files["navy"], ["brand"])
            second = job.import_asset(files["red"], ["licensed"])
            clips = [{"source": first, "end": 0.5}, {"source": second, "start": 0.25}]
            answer = at.act(job, "assemble", clips=clips)
            assert answer.status == "success", answer.content
            (film,) = at.made()
        assert film["media_type"] == "video/mp4"
        assert film["labels"] == {"brand", "licensed"}
        assert len(at.parents(film["sha256"])) == 2
        assert f"Film saved to {film['id']}" in answer.content
        assert str(tmp_path) not in answer.content
        assert "/" not in str(answer.content).replace("video/mp4", "")
    assert not Path(got[-1]).exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"clips": [{"source": "ASSET"}], "output_path": "/etc/cron.d/x"},
        {"clips": [{"source": "ASSET"}], "output_path": "ok.mp4"},
        {"clips": [{"source": "/etc/passwd"}]},
        {"clips": [{"source": "https://evil.example/x.mp4"}]},
        {"clips": [{"source": "ASSET", "filter": "movie=/etc/passwd"}]},
        {"clips": {"source": "ASSET"}},
        {"clips": "[{\"source\": \"/etc/passwd\"}]"},
    ],
)  # fmt: skip
def test_a_path_that_the_model_writes_never_reaches_the_tool(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    with desk(tmp_path) as at:
        bind(at)
        (tmp_path / "a.mp4").write_bytes(mp4())
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            asset = job.import_asset(tmp_path / "a.mp4", ["brand"])
            ran = len(got)
            if isinstance(arguments["clips"], list):
                clips = [{**c, "source": c["source"].replace("ASSET", asset)}
                         for c in arguments["clips"]]  # fmt: skip
                arguments = {**arguments, "clips": clips}
            answer = at.act(job, "assemble", **arguments)
            assert answer.status == "error"
            assert len(got) == ran


def test_an_error_told_as_text_is_a_failure_for_its_output_is_missing(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        bind(at)
        (tmp_path / "a.mp4").write_bytes(mp4())
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            asset = job.import_asset(tmp_path / "a.mp4", ["brand"])
            backwards = [{"source": asset, "start": 2, "end": 1}]
            for name in ("assemble", "give_up"):
                answer = at.act(job, name, clips=backwards)
                assert answer.status == "error", name
                assert answer.text.startswith(f"{name} failed: ")
                if name == "give_up":  # no text makes an output of nothing
                    assert "wrote no output file; it said: Success!" in answer.content
                assert str(tmp_path) not in answer.content
                assert "/tmp" not in answer.content
            assert at.made() == []
        assert {row["state"] for row in rows(at, "SELECT state FROM grants")} == {"failed"}
