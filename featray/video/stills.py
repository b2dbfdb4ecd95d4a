"""Video. Pictures as the frames of a unit: opened with Pillow, converted to sRGB, upright according to EXIF.

A picture that cannot be read affects only its own frame: it is yielded as missing, and the account says why.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from featray.config import DecodeConfig
from featray.errors import ErrorCode, VideoError, counted, one_line
from featray.video.container import refuse_huge
from featray.video.decode import DecodeAccount
from featray.video.frame import Frame
from featray.video.shape import SQUARE
from featray.video.units import Picture, Unit

MAX_FILE_BYTES: Final = 255 << 20
"""Size limit of a picture's file, which is read whole and must fit in a message of `wire.py`. An uncompressed 16-bit 8K
picture has 200 MB."""

_FORMATS: Final = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
        BmpImagePlugin.DibImageFile,
    )
)
"""Formats to open, detected from the first bytes, not the name. Pillow's other formats are rare and less tested."""

_SHOWN: Final = 20
"""Number of unreadable pictures that a unit's errors name; the others are counted."""

_TURNS: Final = {
    # EXIF 2.32, tag 274: whether to mirror left to right, then counterclockwise degrees, to make it upright.
    2: (True, 0),
    3: (False, 180),
    4: (True, 180),
    5: (True, 90),
    6: (False, 270),
    7: (True, 270),
    8: (False, 90),
}
_ORIENTATION: Final = 274
_SRGB: Final = 13
"""Transfer characteristic in ITU-T H.273."""


def decode_stills(
    read: Callable[[Picture], bytes], unit: Unit, settings: DecodeConfig, account: DecodeAccount
) -> Iterator[Frame]:
    """Yield the pictures of a unit as frames, in order; the first of the next unit, if included, as `beyond`.

    Args:
        read: returns a picture's bytes; raises VideoError if they cannot be read.
        unit: a unit with `pictures`.
        settings: decoding settings.
        account: filled while frames are consumed.
    """
    unread = 0
    for picture in unit.pictures:
        beyond = unit.end_index is not None and picture.position >= unit.end_index
        try:
            frame = _frame(read(picture), picture, settings, beyond=beyond)
        except VideoError as error:
            frame = Frame.missing(index=picture.position, pts_us=picture.pts_us, name=picture.name, beyond=beyond)
            if not beyond:
                unread += 1
                if unread <= _SHOWN:
                    account.errors.append((error.code, f"{picture.name}: {error}"))
        if not beyond and not frame.is_missing:
            account.note_frame(frame, SQUARE, _SRGB)
        yield frame
    if unread > _SHOWN:
        account.errors.append((ErrorCode.DECODE_FAILED, f"{counted(unread - _SHOWN, 'more picture')} cannot be read"))
    if unit.problem is not None:
        account.errors.append((ErrorCode(unit.problem[0]), unit.problem[1]))


def _frame(data: bytes, picture: Picture, settings: DecodeConfig, *, beyond: bool) -> Frame:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            refuse_huge(image.width, image.height, settings.max_pixels)
            mirrored, turn = _TURNS.get(_orientation(image), (False, 0))
            pixels = to_srgb(image)
    except VideoError:
        raise
    except MemoryError:
        raise VideoError("needs more memory than a unit may use", code=ErrorCode.OUT_OF_MEMORY) from None
    except Image.DecompressionBombError:
        raise VideoError("has more pixels than Pillow allows", code=ErrorCode.TOO_LARGE) from None
    except UnidentifiedImageError:
        text = "is empty" if not data else "is not a JPEG, PNG, WebP, TIFF or BMP"
        raise VideoError(text, code=ErrorCode.NOT_A_VIDEO) from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise all kinds of exceptions
        raise VideoError(f"cannot be decoded ({one_line(error)})", code=ErrorCode.DECODE_FAILED) from None
    stored = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    width_px, height_px = (stored.height, stored.width) if turn in (90, 270) else (stored.width, stored.height)
    return Frame(
        picture.position, picture.pts_us, True, width_px, height_px, turn, mirrored, stored, beyond, name=picture.name
    )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 if EXIF is missing or damaged, as in viewers."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - as above; the pixels are readable without it
        return 1


def to_srgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return an opened picture's pixels, uint8 `[height, width, 3]`, sRGB, as stored: not turned.

    Of 16-bit values the upper eight bits are used. Transparent pixels are blended with white. An ICC profile is applied
    with perceptual intent if it matches the picture's colour space; without a profile, grey and RGB count as sRGB.

    Raises:
        VideoError: the value of white is not known.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8), "L")
    elif image.mode in ("I", "F"):
        text = f"has 32-bit {'floats' if image.mode == 'F' else 'integers'}, whose white is unknown; save it in 8 bits"
        raise VideoError(text, code=ErrorCode.UNSUPPORTED_CODEC)
    if image.mode != "RGB" or profile:
        image = _in_rgb(_unpacked(image), profile)
    image.load()
    return np.asarray(image)


def _unpacked(image: Image.Image) -> Image.Image:
    """Return a picture without a palette, in a mode that profiles support, with or without alpha."""
    if image.mode in ("P", "PA") or (image.mode in ("1", "L", "RGB") and "transparency" in image.info):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    direct = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
    return image.convert(direct[image.mode]) if image.mode in direct else image


def _in_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image.convert(image.mode[:-1]) if alpha is not None else image
    transform = _transform(profile, colours.mode) if profile else None
    if transform is not None:
        colours = ImageCms.applyTransform(colours, transform) or colours
    elif colours.mode == "LAB":
        colours = ImageCms.applyTransform(colours, _lab_to_srgb()) or colours
    shown = colours if colours.mode == "RGB" else colours.convert("RGB")
    return shown if alpha is None else Image.composite(shown, Image.new("RGB", shown.size, "white"), alpha)


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform from a profile to sRGB; None if it has no effect, or the profile is damaged or unsuited."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
        if mode != "RGB":
            return transform
        # Most profiles are a vendor's version of sRGB and change no colour by more than rounding.
        cube = Image.fromarray(np.stack(np.meshgrid(*[_STEPS] * 3), axis=-1).reshape(-1, len(_STEPS), 3))
        moved = np.asarray(ImageCms.applyTransform(cube, transform)).astype(int) - np.asarray(cube)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform if np.abs(moved).max() > _ROUNDING else None


_STEPS: Final = np.arange(0, 256, 15, dtype=np.uint8)
_ROUNDING: Final = 2


@lru_cache(maxsize=1)
def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")


@lru_cache(maxsize=1)
def _lab_to_srgb() -> Any:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")
