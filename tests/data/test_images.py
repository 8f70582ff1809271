"""A photograph comes out whole, upright, sRGB and 8-bit, or as an ImageError that says why."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile

from calm.data.store.images import ImageError, encode, read_image
from calm.data.store.pixels import ADOBE_RGB, fit, matrix_profile, upright_srgb
from calm.data.store.shards import ImageStore, ShardWriter
from tests.data.conftest import picture
from tests.data.dng import dng

MAX_PIXELS = 10**6
# Primaries of Display P3 under D50, with a plain gamma in place of its curve.
DISPLAY_P3 = matrix_profile(((0.5151, 0.2412, -0.0011), (0.292, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), 2.2)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes) -> Image.Image:
    return read_image(data, max_pixels=MAX_PIXELS, name="it.jpg")


def png(width: int, height: int, bits: int, lines: bytes) -> bytes:
    """Of RGB, by hand: Pillow writes 16 bits of grey only, and no picture that is not there."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines, 1)) + chunk(b"IEND", b"")


def png16(pixels: np.ndarray) -> bytes:
    """Colours (H, W, 3) of 16 bits."""
    height, width, _ = pixels.shape
    return png(width, height, 16, b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels))


def mean_gap(left: Image.Image, right: Image.Image) -> float:
    return float(np.abs(np.asarray(left, dtype=float) - np.asarray(right, dtype=float)).mean())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_allowed_formats_are_read(kind: str) -> None:
    image = read(saved(picture(1), kind))
    assert image.mode == "RGB"
    assert mean_gap(image, picture(1)) < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_errors_whatever_other_libraries_switched_on(
    kind: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = saved(picture(1), kind)
    with pytest.raises(ImageError, match=r"it\.jpg: truncated"):
        read(data[: int(len(data) * share)])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_never_raise_anything_but_image_errors() -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        data = saved(picture(1, (40, 30)), kind)
        for _ in range(60):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                broken[place] = rng.integers(0, 256)
            try:
                outcomes.add(read(bytes(broken)).mode)
            except ImageError:
                outcomes.add("ImageError")
    assert outcomes == {"RGB", "ImageError"}


@pytest.mark.parametrize("data", [b"", b"no picture", saved(picture(1), "PPM"), saved(picture(1), "ICO")])
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a photograph in an allowed format"):
        read(data)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    bomb = png(9_000, 8_000, 8, b"")
    with pytest.raises(ImageError, match=r"9000x8000 pixels, more than the 1000000 allowed"):
        read(bomb)


def test_a_missing_file_and_a_folder_are_image_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(ImageError, match=str(path)):
            read_image(path, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = picture(1)
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # PIL's Transpose that EXIF undoes
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert mean_gap(read(saved(stored, "PNG", exif=exif)), upright) == 0


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    grey = Image.new("L", (100, 80), 128)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    linear = srgb_with_linear_curve(srgb)
    colours = Image.merge("RGB", (grey, grey, grey))
    assert mean_gap(read(saved(colours, "PNG", icc_profile=srgb)), colours) <= 1
    assert abs(read(saved(colours, "PNG", icc_profile=linear)).getpixel((5, 5))[0] - 188) <= 2  # 0.5 linear is 188


def srgb_with_linear_curve(profile: bytes) -> bytes:
    """The sRGB profile with its three tone curves set to y = x."""
    data = bytearray(profile)
    for number in range(struct.unpack(">I", data[128:132])[0]):
        name, offset, _ = struct.unpack(">4sII", data[132 + 12 * number : 144 + 12 * number])
        if name in {b"rTRC", b"gTRC", b"bTRC"}:
            data[offset : offset + 12] = b"curv\0\0\0\0\0\0\0\0"  # no entries: identity
    return bytes(data)


def test_a_damaged_profile_counts_as_none() -> None:
    assert mean_gap(read(saved(picture(1), "PNG", icc_profile=b"nonsense")), picture(1)) == 0


def test_transparency_becomes_white() -> None:
    layered = picture(1).convert("RGBA")
    layered.putalpha(Image.new("L", layered.size, 0))
    assert read(saved(layered, "PNG")).getpixel((7, 7)) == (255, 255, 255)
    half = Image.new("LA", (50, 50), (0, 128))
    assert abs(read(saved(half, "PNG")).getpixel((7, 7))[0] - 127) <= 1
    keyed = Image.new("P", (50, 50), 3)
    keyed.putpalette(bytes(range(12)))
    assert read(saved(keyed, "PNG", transparency=3)).getpixel((7, 7)) == (255, 255, 255)


def test_sixteen_bits_keep_their_range() -> None:
    ramp = np.linspace(0, 65535, 100 * 80).astype(np.uint16).reshape(80, 100)
    for kind in ("PNG", "TIFF"):
        got = np.asarray(read(saved(Image.fromarray(ramp), kind)))[..., 0]
        np.testing.assert_array_equal(got, np.round(ramp / 257))


def test_numbers_without_a_known_white_are_refused() -> None:
    for array in (np.ones((50, 50), np.float32), np.ones((50, 50), np.int32)):
        with pytest.raises(ImageError, match="without a known white: save it with 8 or 16 bits"):
            read(saved(Image.fromarray(array), "TIFF"))


def test_palette_cmyk_bilevel_and_grey_become_rgb() -> None:
    for mode, kind, most in (
        ("P", "PNG", 30),
        ("CMYK", "JPEG", 12),
        ("CMYK", "TIFF", 2),
        ("L", "JPEG", 70),
        ("1", "PNG", 130),
    ):
        image = read(saved(picture(1).convert(mode), kind))
        assert image.mode == "RGB"
        assert mean_gap(image, picture(1)) < most


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "gap"), [("JPEG", 3), ("WEBP", 8), ("TIFF", 0)])
def test_exif_orientation_is_applied_once_in_every_format(kind: str, gap: float, orientation: int) -> None:
    upright = picture(1)
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind != "TIFF" else {}
    got = read(saved(stored, kind, exif=exif, **options))
    assert got.size == upright.size
    assert mean_gap(got, upright) <= gap


def test_sixteen_bit_colours_come_out_within_one_level() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (40, 70, 3)).astype(np.uint16)

    got = np.asarray(read(png16(pixels))).astype(int)
    assert np.abs(got - pixels / 257).max() <= 1


def test_grey_with_transparency_is_converted_by_its_grey_profile() -> None:
    flat = Image.new("LA", (70, 70), (128, 255))
    profile = grey_profile_with_linear_curve()
    assert abs(read(saved(flat, "PNG", icc_profile=profile)).getpixel((5, 5))[0] - 188) <= 2
    assert abs(read(saved(flat.convert("L"), "PNG", icc_profile=profile)).getpixel((5, 5))[0] - 188) <= 2
    assert read(saved(flat, "PNG")).getpixel((5, 5)) == (128, 128, 128)


def grey_profile_with_linear_curve() -> bytes:
    """A minimal ICC profile of one grey channel whose tone curve is y = x."""
    white = struct.pack(">4s4x3i", b"XYZ ", 0xF6D6, 0x10000, 0xD32D)  # D50
    curve = struct.pack(">4s4xI", b"curv", 0)
    about = struct.pack(">4s4xI", b"desc", 5) + b"grey\0" + bytes(78)
    tags, body, offset = b"", b"", 128 + 4 + 3 * 12
    for name, data in ((b"wtpt", white), (b"kTRC", curve), (b"desc", about)):
        padded = data + bytes(-len(data) % 4)
        tags += struct.pack(">4sII", name, offset + len(body), len(data))
        body += padded
    size = offset + len(body)
    date = struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    header = struct.pack(">I4xI4s4s4s", size, 0x02400000, b"mntr", b"GRAY", b"XYZ ") + date + b"acsp" + bytes(28)
    header += struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + struct.pack(">I", 3) + tags + body


def test_lab_colours_are_converted() -> None:
    lab = ImageCms.profileToProfile(
        picture(1), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    image = read(saved(lab, "TIFF"))
    assert image.mode == "RGB"
    assert mean_gap(image, picture(1)) < 8  # colours out of sRGB's range are cut


def test_cmyk_is_converted_by_its_profile_or_else_plainly() -> None:
    ink = Image.new("CMYK", (70, 70), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        red, green, blue = read(saved(ink, kind)).getpixel((5, 5))
        assert red > 250
        assert max(green, blue) < 5


def test_a_palette_with_several_transparencies_is_blended_onto_white() -> None:
    keyed = Image.new("P", (50, 50), 1)
    keyed.putpalette([0, 0, 0, 100, 0, 0])
    assert read(saved(keyed, "PNG", transparency=bytes([255, 128]))).getpixel((7, 7)) == (177, 127, 127)


def test_of_several_pictures_in_one_jpeg_the_first_is_taken() -> None:
    data = saved(picture(1), "MPO", save_all=True, append_images=[picture(2)], quality=95)
    assert mean_gap(read(data), picture(1)) < 4


def test_of_a_transparent_animation_the_first_frame_stands_on_white() -> None:
    frames = [Image.new("RGBA", (64, 64), (0, 0, 0, 0)), Image.new("RGBA", (64, 64), (0, 0, 0, 255))]
    for kind in ("GIF", "PNG", "WEBP"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        assert read(data).getpixel((9, 9)) == (255, 255, 255), kind


def test_of_an_animation_the_first_frame_is_taken() -> None:
    for kind in ("GIF", "WEBP", "PNG"):
        data = saved(picture(1), kind, save_all=True, append_images=[picture(2)], duration=100)
        image = read(data)
        assert mean_gap(image, picture(1)) < mean_gap(image, picture(2)) / 3


def test_scaling_keeps_the_shape_and_never_enlarges() -> None:
    assert fit(picture(1, (400, 300)), 200).size == (200, 150)
    assert fit(picture(1, (100, 80)), 200).size == (100, 80)


def test_stored_photographs_keep_full_chroma_resolution() -> None:
    with Image.open(io.BytesIO(encode(picture(1), 95))) as image:
        assert [component[1:3] for component in image.layer] == [(1, 1)] * 3
    assert encode(picture(1), 95) == encode(picture(1), 95)


def test_the_store_gives_every_photograph_back_over_many_shards(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, shard_bytes=20_000, batch_rows=3)
    places = {f"i{number}": writer.add(f"i{number}", encode(picture(number), 90)) for number in range(17)}
    writer.close()
    store = pickle.loads(pickle.dumps(ImageStore(tmp_path)))
    assert list(store) == list(places)
    assert len(store) == 17
    assert len({shard for shard, _ in places.values()}) > 2
    assert all(path.stat().st_size < 30_000 for path in tmp_path.glob("*.arrow"))
    for number in (16, 0, 9):
        assert mean_gap(store[f"i{number}"], picture(number)) < 4
    assert "i3" in store
    assert "absent" not in store
    with pytest.raises(KeyError, match="absent"):
        store["absent"]


def test_a_store_without_shards_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="prepare"):
        ImageStore(tmp_path)


def test_more_pixels_than_pillow_would_take_are_a_matter_of_our_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow refuses twice as many
    assert read(saved(Image.new("RGB", (50, 50)), "PNG")).size == (50, 50)


def test_a_decoders_warnings_are_not_printed_and_those_of_others_stay(tmp_path: Path) -> None:
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x12\x01"  # an entry that ends too early
    (tmp_path / "it.jpg").write_bytes(saved(Image.new("RGB", (50, 50)), "JPEG", exif=exif))
    code = (
        "import sys, warnings; from pathlib import Path\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from calm.data.store.images import read_image\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    list(pool.map(lambda path: read_image(path, max_pixels=10**6), [Path(sys.argv[1])] * 64))\n"
        "warnings.warn('mine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "it.jpg")], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("Warning") == 1 and "mine" in done.stderr


@pytest.mark.parametrize(("kind", "name"), [("HEIF", "it.heic"), ("AVIF", "it.avif")])
def test_photographs_of_phones_are_read(kind: str, name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    # Of HEIF the container turns it, whatever EXIF says; Pillow writes that for AVIF.
    stored = picture(1) if kind == "HEIF" else picture(1).transpose(Image.Transpose.ROTATE_90)
    (tmp_path / name).write_bytes(data := saved(stored, kind, quality=90, exif=exif))
    for got in (read(data), read_image(tmp_path / name, max_pixels=MAX_PIXELS)):
        assert got.size == picture(1).size and mean_gap(got, picture(1)) < 8
    with pytest.raises(ImageError, match=r"it\.jpg: truncated|or not a whole one"):
        read(data[: len(data) // 2])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("told_twice", [False, True])
def test_a_raw_file_is_read_by_its_preview_turned_once(orientation: int, told_twice: bool, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    upright = picture(1, (1200, 800))
    undo = {1: None, 3: 3, 6: 2, 8: 4}[orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    if told_twice:
        exif[0x0112] = orientation
    data = dng(saved(stored, "JPEG", quality=95, exif=exif), stored.size, orientation)
    (tmp_path / "it.DNG").write_bytes(data)
    for got in (
        read_image(tmp_path / "it.DNG", max_pixels=MAX_PIXELS),
        read_image(data, max_pixels=MAX_PIXELS, name="it.dng"),
    ):
        assert got.size == upright.size and mean_gap(got, upright) < 4


def test_a_raw_file_with_no_preview_or_a_small_one_is_developed() -> None:
    pytest.importorskip("rawpy")
    small = saved(picture(1, (160, 120)), "JPEG")
    for data in (dng(), dng(small, (160, 120))):
        got = read_image(data, max_pixels=MAX_PIXELS, name="it.dng")
        assert got.size == (128, 128) and np.ptp(np.asarray(got)) < 16  # a grey mosaic at half its size
    with pytest.raises(ImageError, match=r"it\.dng: truncated or damaged"):
        read_image(b"no such thing", max_pixels=MAX_PIXELS, name="it.dng")


def test_without_rawpy_a_raw_file_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError, match=r"it\.CR2: a camera's RAW file: to read it, pip install rawpy"):
        read_image(b"whatever", max_pixels=MAX_PIXELS, name="it.CR2")


def converted(image: Image.Image, profile: bytes) -> Image.Image:
    """An sRGB photograph in other numbers for the same colours."""
    wide = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), wide, outputMode="RGB")


@pytest.mark.parametrize("told", ["colour space", "index", "both"])
def test_adobe_rgb_that_exif_alone_tells_of_is_converted(told: str) -> None:
    exif = Image.Exif()
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ColorSpace] = 2 if told != "index" else 65535
    if told != "colour space":
        inner[ExifTags.IFD.Interop] = {ExifTags.Interop.InteropIndex: "R03\0"}
    wide = converted(picture(1), ADOBE_RGB)
    wide.info.clear()
    got = read(saved(wide, "JPEG", quality=95, exif=exif))
    assert mean_gap(got, picture(1)) < 3 < mean_gap(wide, picture(1))
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 65535  # nothing known: as it is
    exif.get_ifd(ExifTags.IFD.Exif).pop(ExifTags.IFD.Interop, None)
    assert mean_gap(read(saved(wide, "JPEG", quality=95, exif=exif)), wide) < 3


def test_our_adobe_rgb_is_as_published() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(ADOBE_RGB))
    middle = 255 * (1.055 * (128 / 255) ** (563 / 256 / 2.4) - 0.055)  # the same light on sRGB's curve
    for wide, want in {(255, 0, 0): (255, 0, 0), (255,) * 3: (255,) * 3, (128,) * 3: (middle,) * 3}.items():
        pixel = Image.new("RGB", (1, 1), wide)
        got = ImageCms.profileToProfile(pixel, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert np.abs(np.subtract(got.getpixel((0, 0)), want)).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "CMYK", "P", "1", "I;16"])
def test_what_is_scaled_first_looks_as_what_is_scaled_last(mode: str) -> None:
    large = picture(3, (900, 600))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(large.convert("L")).astype(np.uint16) * 257)
    else:
        image = large.convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    assert mean_gap(upright_srgb(image, 128), fit(upright_srgb(image), 128)) < 2


def test_no_copy_of_a_large_photograph_is_made() -> None:
    code = (
        "import io, resource, sys; from PIL import Image\n"
        "from calm.data.store.images import read_image\n"
        "buffer = io.BytesIO(); Image.new(sys.argv[1], (6000, 6000)).save(buffer, 'PNG', compress_level=1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read_image(buffer.getvalue(), max_pixels=10**9, max_side=1024)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 36e6)"
    )
    for mode, held in {"RGB": 4, "I;16": 2}.items():  # bytes for each pixel in Pillow; the saved one held as many
        done = subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True)
        assert float(done.stdout) < 0.5 * held, mode
