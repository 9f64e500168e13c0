# SPDX-License-Identifier: Apache-2.0
"""Pictures of every kind that people have, beside the numbers that they were made of."""

import io
import struct
import warnings
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ncjax.data.cuts import cut_array, middle
from ncjax.data.pictures import MOST_PIXELS, decode, is_grey, is_picture
from ncjax.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 5), dtype=np.uint16)
DEEP_COLOUR = RNG.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
ALPHA = np.array([0, 255, 128, 255, 255], np.uint8) * np.ones((6, 1), np.uint8)


def png(pixels, colour_type, *chunks, depth=None, shape=None):
    """A PNG file, written from its specification: the oracle of what its numbers mean."""
    depth = depth or 8 * pixels.dtype.itemsize
    height, width = shape or pixels.shape[:2]

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(f">u{row.dtype.itemsize}").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = b"".join(chunk(*one) for one in chunks)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def saved(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def raw(mode, pixels):
    file = io.BytesIO()
    Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes()).save(file, "TIFF")
    return file.getvalue()


def tiff(pixels, photometric=1, sample_format=1, orientation=1):
    """An uncompressed little-endian TIFF of one strip, grey, written from its specification."""
    height, width = pixels.shape
    data = pixels.tobytes()
    tags = [(256, width), (257, height), (258, 8 * pixels.dtype.itemsize), (259, 1), (262, photometric), (273, 8)]
    tags += [(274, orientation), (277, 1), (278, height), (279, len(data)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def on_white(colours, alpha):
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def oriented(orientation, pixels=COLOUR):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(pixels, "PNG", exif=exif)


def packed(pixels, depth):
    """The rows of a PNG of fewer than 8 bits."""
    bits = np.unpackbits(pixels[..., None], axis=2)[..., 8 - depth :]
    return np.packbits(bits.reshape(len(pixels), -1), axis=1)


def eight_bits(pixels):
    return np.round(pixels / 257)


PALETTE = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
INDEX = RNG.integers(0, 4, (6, 5), dtype=np.uint8)
CMYK = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
BITS = np.packbits(GREY > 127, axis=1)
MEANT = {  # file, the values that it means
    "8-bit grey PNG": (png(GREY, 0), GREY),
    "8-bit colour PNG": (png(COLOUR.reshape(6, 15), 2, shape=(6, 5)), COLOUR),
    "16-bit grey PNG": (png(DEEP, 0), eight_bits(DEEP)),
    "16-bit colour PNG": (png(DEEP_COLOUR.reshape(6, 15), 2, shape=(6, 5)), eight_bits(DEEP_COLOUR)),
    "1-bit PNG": (png(BITS, 0, depth=1, shape=(6, 5)), 255 * (GREY > 127)),
    "2-bit grey PNG": (png(packed(GREY >> 6, 2), 0, depth=2, shape=(6, 5)), (GREY >> 6) * 85),
    "4-bit grey PNG": (png(packed(GREY >> 4, 4), 0, depth=4, shape=(6, 5)), (GREY >> 4) * 17),
    "16-bit grey PNG turned by a quarter": (oriented(6, DEEP), np.rot90(eight_bits(DEEP), -1)),
    "palette PNG": (png(INDEX, 3, (b"PLTE", PALETTE.tobytes())), PALETTE[INDEX]),
    "palette PNG with a clear colour": (
        png(INDEX, 3, (b"PLTE", PALETTE.tobytes()), (b"tRNS", b"\xff\x00")),
        np.where(INDEX[..., None] == 1, 255, PALETTE[INDEX]),
    ),
    "colour and alpha PNG": (
        png(np.dstack([COLOUR, ALPHA]).reshape(6, 20), 6, shape=(6, 5)),
        on_white(COLOUR, ALPHA),
    ),
    "grey and alpha PNG": (
        png(np.dstack([GREY, ALPHA]).reshape(6, 10), 4, shape=(6, 5)),
        on_white(GREY[..., None], ALPHA),
    ),
    "16-bit grey TIFF": (tiff(DEEP), eight_bits(DEEP)),
    "16-bit TIFF of which 0 is white": (tiff(DEEP, photometric=0), 255 - eight_bits(DEEP)),
    "8-bit TIFF of which 0 is white": (tiff(GREY, photometric=0), 255.0 - GREY),
    "16-bit TIFF upside down": (tiff(DEEP, orientation=3), eight_bits(DEEP)[::-1, ::-1]),
    "CMYK TIFF": (raw("CMYK", CMYK), (255.0 - CMYK[..., :3]) * (255.0 - CMYK[..., 3:]) / 255),
    "LAB TIFF": (raw("LAB", np.full((6, 5, 3), (137, 0, 0), np.uint8)), np.full((6, 5), 128)),  # lightness 53.7
    "16-bit PGM": (b"P5 5 6 65535\n" + DEEP.astype(">u2").tobytes(), eight_bits(DEEP)),
    "12-bit PGM": (b"P5 5 6 4095\n" + (DEEP >> 4).astype(">u2").tobytes(), (DEEP >> 4) * (255 / 4095)),
    "BMP": (saved(COLOUR, "BMP"), COLOUR),
    "GIF": (saved(GREY, "GIF"), GREY),
    "WEBP": (saved(COLOUR, "WEBP", lossless=True), COLOUR),
    "turned by a quarter": (oriented(6), np.rot90(COLOUR, -1)),
    "turned by three quarters": (oriented(8), np.rot90(COLOUR)),
    "mirrored": (oriented(2), COLOUR[:, ::-1]),
    "transposed": (oriented(5), COLOUR.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MEANT)
def test_what_can_be_meant_is_read_right(name, tmp_path):
    content, wanted = MEANT[name]
    (tmp_path / "a.png").write_bytes(content)
    pixels = decode(tmp_path / "a.png", 3)
    wanted = wanted if np.ndim(wanted) == 3 else np.asarray(wanted)[..., None]
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, np.broadcast_to(wanted, pixels.shape), atol=1)
    if is_grey(tmp_path / "a.png"):
        grey = decode(tmp_path / "a.png", 1)
        assert grey.shape == (*pixels.shape[:2], 1)
        np.testing.assert_array_equal(np.repeat(grey, 3, axis=2), pixels)


@pytest.mark.parametrize("name", MEANT)
def test_colours_are_known_from_the_header(name, tmp_path):
    (tmp_path / "a").write_bytes(MEANT[name][0])
    assert is_picture(tmp_path / "a")
    assert is_grey(tmp_path / "a") == any(word in name for word in ("grey", "0 is white", "1-bit", "PGM", "upside"))


@pytest.mark.parametrize("name", MEANT)
def test_damage_is_read_or_refused_in_one_line(name, tmp_path):
    rng, said = np.random.default_rng(list(name.encode())), []
    for _ in range(8):
        content = bytearray(MEANT[name][0])
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        (tmp_path / "a.png").write_bytes(content[: rng.integers(1, 2 * len(content))])
        for read in (is_grey, lambda file: decode(file, 3)):
            try:
                with warnings.catch_warnings(action="ignore"):
                    read(tmp_path / "a.png")
            except UserError as error:
                said.append(str(error))
    assert said
    assert all("a.png" in message and "\n" not in message for message in said)


def frames(kind):
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, kind, save_all=True, append_images=[Image.fromarray(255 - GREY)])
    return file.getvalue()


def eps():
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n(/tmp/x) (w) file\nshowpage\n"


REFUSED = {
    "float TIFF": (tiff(GREY.astype(np.float32) / 255, sample_format=3), "floating-point numbers"),
    "32-bit TIFF": (tiff(GREY.astype(np.int32), sample_format=2), "32-bit whole numbers"),
    "signed 16-bit TIFF": (tiff(GREY.astype(np.int16), sample_format=2), "32-bit whole numbers"),
    "TIFF of two pages": (frames("TIFF"), "holds 2 pictures"),
    "moving GIF": (frames("GIF"), "holds 2 pictures"),
    "program in PostScript": (eps(), "cannot identify"),
    "bomb of a PNG": (png(GREY, 0, shape=(100_000, 100_000)), "not an image"),
    "just too large a PNG": (png(GREY, 0, shape=(2**13 + 1, 2**13)), f"more than {MOST_PIXELS:,}"),
    "bomb of a BMP": (
        b"BM" + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 60_000, 60_000, 1, 24) + bytes(24),
        "not an image",
    ),
    "bomb of a TIFF": (
        tiff(GREY).replace(struct.pack("<HHII", 256, 3, 1, 5), struct.pack("<HHII", 256, 4, 1, 2**31 - 1)),
        "not an image",
    ),
    "bomb of text in a PNG": (png(GREY, 0, (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))), "not an image"),
    "half a PNG": (png(COLOUR.reshape(6, 15), 2, shape=(6, 5))[:60], "not an image"),
    "empty": (b"", "not an image"),
    "text": (b"hello", "not an image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name_in_one_line(name, tmp_path):
    content, message = REFUSED[name]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError) as error, warnings.catch_warnings(action="ignore"):
        decode(tmp_path / "a.png", 3)
    assert message in str(error.value)
    assert "a.png" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_photograph_with_a_preview_is_its_first_picture(tmp_path):
    first, preview = (
        Image.fromarray(np.full((16, 16, 3), 200, np.uint8)),
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)),
    )
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    assert decode(tmp_path / "a.jpg", 3).shape == (16, 16, 3)
    assert abs(int(decode(tmp_path / "a.jpg", 3).mean()) - 200) <= 2


@pytest.mark.parametrize(("name", "content", "picture"), [
    ("a.PNG", b"damaged", True), ("a.jpeg", b"", True), ("a.tif", b"x", True), ("picture", png(GREY, 0), True),
    ("a.png.1", png(GREY, 0), True), ("Thumbs.db", b"\xd0\xcf\x11\xe0", False), ("notes.txt", b"P5 is a format", False),
    ("README", b"text", False), ("a.csv", b"a,b\n", False), ("desktop.ini", b"[x]", False), ("a.json", b"{}", False),
])  # fmt: skip
def test_what_is_a_picture_is_told_by_suffix_or_first_bytes(name, content, picture, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert is_picture(tmp_path / name) == picture


@pytest.mark.parametrize("name", ["a.heic", "a.SVG", "a.eps", "a.psd", "a.tga", "a.pdf", "a.dng"])
def test_pictures_of_formats_that_are_not_read_are_not_skipped(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{name} is of a format that is not read; convert it to PNG"):
        is_picture(tmp_path / name)


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (8, 12, 3), (13, 8, 4), (4, 4, 2), (9, 30, 3), (1, 1, 1), (2, 50, 3), (16, 8, 5)]
)
def test_resizing_takes_the_square_in_the_middle(shape):
    column = np.linspace(0, 255, shape[1]).astype(np.uint8)
    pixels = np.broadcast_to(column[None, :, None], shape)
    side, size = min(shape[:2]), 4
    left = (shape[1] - side) / 2
    made = cut_array(np.ascontiguousarray(pixels), partial(middle, size=size))
    assert made.shape == (size, size, shape[2])
    if side >= size:  # mean of each cell, of a ramp: its value in the middle
        centres = left + (np.arange(1, size - 1) + 0.5) * side / size - 0.5
        wanted = np.interp(centres, np.arange(shape[1]), column.astype(float))
        np.testing.assert_allclose(made[0, 1:-1, 0], wanted, atol=3)
