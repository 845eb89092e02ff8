from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from codec.errors import VideoError
from codec.video.format import VideoFormat
from codec.video.images import natural_key
from codec.video.reader import open_reader
from codec.video.writer import open_writer


def save(path, value, size=(6, 4), mode="RGB", **options):
    colour = value if mode != "RGB" else (value, value // 2, 255 - value)
    Image.new(mode, size, colour).save(path, **options)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (32, 18)])
def test_round_trip(tmp_path, random_frames, same_frames, size):
    format = VideoFormat(*size, 25, "rgb")
    frames = random_frames(format, 12)
    with open_writer(tmp_path / "out", format) as writer:
        for frame in frames:
            writer.write(frame)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{index:05d}.png" for index in range(12)]
    with open_reader(tmp_path / "out") as reader:
        assert reader.format == format and reader.frame_count == 12
        assert same_frames(frames, list(reader))
    with Image.open(tmp_path / "out" / "00003.png") as picture:
        assert np.array_equal(np.asarray(picture), np.stack(frames[3], -1))


def test_natural_order_and_foreign_files(tmp_path):
    for number in (10, 9, 2, 1):
        save(tmp_path / f"img{number}.png", number)
    save(tmp_path / ".hidden.png", 77)
    (tmp_path / "notes.txt").write_text("not a picture")
    with open_reader(tmp_path, fps="30000/1001") as reader:
        assert reader.format.fps == Fraction(30000, 1001)
        assert [int(frame[0][0, 0]) for frame in reader] == [1, 2, 9, 10]
    with open_reader(tmp_path) as reader:
        assert reader.format.fps == 25
    with open_reader(tmp_path, frames=2) as reader:
        assert reader.frame_count == 2 and len(list(reader)) == 2


def test_natural_key():
    names = ["f2.png", "f10.png", "f1.png", "F3.png", "f02.png", "10.png", "9.png", "a.png"]
    assert sorted(names, key=natural_key) == [
        "9.png", "10.png", "F3.png", "a.png", "f1.png", "f02.png", "f2.png", "f10.png"
    ]  # fmt: skip


def test_picture_modes(tmp_path):
    save(tmp_path / "1.png", 90, mode="L")
    Image.new("RGBA", (6, 4), (10, 20, 30, 128)).save(tmp_path / "2.png")
    Image.new("P", (6, 4), 0).save(tmp_path / "3.png")
    Image.fromarray(np.full((4, 6), 0x8080, np.uint16)).save(tmp_path / "4.png")
    Image.new("RGB", (6, 4), (200, 200, 200)).save(tmp_path / "5.JPG", quality=95)
    with open_reader(tmp_path) as reader:
        pixels = [tuple(int(plane[0, 0]) for plane in frame) for frame in reader]
    assert pixels[0] == (90, 90, 90)
    assert pixels[1] == (10, 20, 30)
    assert pixels[2] == (0, 0, 0)
    assert pixels[3] == (128, 128, 128)
    assert all(abs(value - 200) <= 1 for value in pixels[4])


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    picture = Image.new("RGB", (16, 8))
    picture.paste((255, 255, 255), (0, 0, 8, 8))  # the left half: shown, it is the upper one
    picture.save(tmp_path / "a.png", exif=exif)
    with open_reader(tmp_path) as reader:
        assert (reader.format.width, reader.format.height) == (8, 16)
        red = next(reader)[0]
    assert red[:8].min() == 255 and red[8:].max() == 0


def test_other_size_is_named(tmp_path):
    save(tmp_path / "1.png", 1)
    save(tmp_path / "2.png", 2, size=(8, 4))
    with pytest.raises(VideoError, match=r"2\.png is 8x4.*6x4"):
        open_reader(tmp_path)


def test_opening_a_folder_decodes_no_picture(tmp_path, monkeypatch):
    """Thousands of pictures are measured by their headers alone."""
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert open_reader(tmp_path).frame_count == 3


def test_no_picture(tmp_path):
    with pytest.raises(VideoError, match="no .png"):
        open_reader(tmp_path)


def test_damaged_pictures(tmp_path):
    save(tmp_path / "1.png", 1, size=(64, 64))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "2.png").write_bytes(b"not a picture")
    with pytest.raises(VideoError, match=r"2\.png"):
        open_reader(tmp_path)
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    with open_reader(tmp_path) as reader, pytest.raises(VideoError, match=r"2\.png") as caught:
        list(reader)
    assert "\n" not in str(caught.value)


def test_yuv_is_converted_for_pictures(tmp_path):
    format = VideoFormat(5, 3, 25, "420", 10, "bt601", "limited")
    frame = tuple(
        np.full(shape, code, np.uint16)
        for shape, code in zip(format.plane_shapes(), (940, 512, 512), strict=True)
    )
    with open_writer(f"{tmp_path}/white/", format) as writer:
        writer.write(frame)
    with open_reader(tmp_path / "white") as reader:
        assert all((plane == 255).all() for plane in next(reader))


def test_folders_are_replaced_only_if_they_are_ours(tmp_path, random_frames, same_frames):
    format = VideoFormat(4, 4, 25, "rgb")
    frames = random_frames(format, 3)
    target = tmp_path / "out"

    def write(count, **options):
        with open_writer(target, format, **options) as writer:
            for frame in frames[:count]:
                writer.write(frame)

    target.mkdir()
    write(3)  # an empty folder is filled
    write(1)  # numbered frames of an earlier run are replaced, none is left over
    assert [path.name for path in target.iterdir()] == ["00000.png"]
    with pytest.raises(VideoError, match="not empty"):
        write(1, overwrite=False)
    save(target / "holiday.png", 3)
    with pytest.raises(VideoError, match="more than numbered frames"):
        write(1)
    assert (target / "holiday.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
