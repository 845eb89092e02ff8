"""The worked example in docs/bitstream.md is a real stream and is what we write."""

import io
import re
from pathlib import Path

from codec.bitstream import ContainerReader, ContainerWriter

DOCUMENT = Path(__file__).parents[3] / "docs" / "bitstream.md"


def example() -> bytes:
    block = re.search(r"<!-- example.*?-->\n```\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    lines = block.group(1).splitlines()
    return b"".join(bytes.fromhex(re.match(r"(?:[0-9a-f]{2} ?)+", line).group()) for line in lines)


def test_the_example_parses_and_is_written_again():
    data = example()
    reader = ContainerReader(io.BytesIO(data))
    frames = list(reader)
    header = reader.header
    assert (header.width, header.height, header.model) == (416, 240, "lite")
    assert [frame.quality for frame in frames] == [32, 30]
    assert [frame.payload.hex() for frame in frames] == ["010203", "04"]
    out = io.BytesIO()
    with ContainerWriter(out, header) as writer:
        for frame in frames:
            writer.write(frame)
    assert out.getvalue() == data
