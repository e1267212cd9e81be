import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.tools import BaseTool, ToolException

from tools.export import outbox_uploader

Make = Callable[..., str]


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    folder = tmp_path / "outbox"
    folder.mkdir()
    return folder


def publish_to_outbox(outbox: Path) -> BaseTool:
    return outbox_uploader({"press": outbox})


def published(outbox: Path) -> list[Path]:
    return [path for path in outbox.iterdir() if path.is_file()]


def test_publishing_copies_the_bytes_under_a_name_that_tells_nothing(
    picture: Make, outbox: Path
) -> None:
    source = picture("Project Falcon, Jane Doe.png")
    publish_to_outbox(outbox).invoke({"source": source, "to": "press", "idempotency_key": "k1"})
    (copy,) = published(outbox)
    assert copy.read_bytes() == Path(source).read_bytes()
    assert copy.suffix == ".png"
    assert "Falcon" not in copy.name


@pytest.mark.parametrize("key", ["k1", "", "../../k1", "ä/\\"])
def test_the_same_key_twice_is_one_file_and_the_same_receipt(
    key: str, picture: Make, outbox: Path
) -> None:
    call = {"source": picture(), "to": "press", "idempotency_key": key}
    first = publish_to_outbox(outbox).invoke(call)
    (copy,) = published(outbox)
    stamp = copy.stat().st_mtime_ns
    assert publish_to_outbox(outbox).invoke(call) == first
    assert published(outbox) == [copy]
    assert copy.stat().st_mtime_ns == stamp


def test_the_same_key_with_other_content_is_refused(picture: Make, outbox: Path) -> None:
    call = {"to": "press", "idempotency_key": "k1"}
    publish_to_outbox(outbox).invoke({"source": picture("a.png"), **call})
    with pytest.raises(ToolException, match="taken"):
        publish_to_outbox(outbox).invoke({"source": picture("b.png", shift=5), **call})
    assert len(published(outbox)) == 1


def test_a_retry_completes_what_a_crash_left_half_done(picture: Make, outbox: Path) -> None:
    call = {"source": picture(), "to": "press", "idempotency_key": "k1"}
    first = publish_to_outbox(outbox).invoke(call)
    (copy,) = published(outbox)
    copy.unlink()  # as if the process had died between receipt and file
    assert publish_to_outbox(outbox).invoke(call) == first
    assert published(outbox) == [copy]


def test_of_racing_publications_under_one_key_exactly_one_content_wins(
    picture: Make, outbox: Path
) -> None:
    sources = [picture(f"{at}.png", 64, 64, shift=at) for at in range(8)]
    results: list[str] = []

    def publish(source: str) -> None:
        try:
            call = {"source": source, "to": "press", "idempotency_key": "k"}
            results.append(publish_to_outbox(outbox).invoke(call))
        except ToolException:
            results.append("refused")

    threads = [threading.Thread(target=publish, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("refused") == 7
    assert len(published(outbox)) == 1


def test_a_missing_source_or_outbox_is_refused(picture: Make, outbox: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolException, match="to is not an outbox"):
        publish_to_outbox(outbox).invoke({"source": picture(), "to": str(outbox)})
    with pytest.raises(ToolException, match="source cannot be read"):
        publish_to_outbox(outbox).invoke({"source": str(tmp_path / "no.png"), "to": "press"})
    assert list(outbox.iterdir()) == []
