"""Clips for the benchmarks, made from the bundled one: longer, larger, with more faces."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path

import imageio_ffmpeg

FRAMES = 472
"""Frames of the bundled clip: 640x360, one face in every frame, 24 frames a second."""

_SOURCE = Path(str(files("featray") / "demo_clips" / "face.mp4"))


def plain(place: Path, times: int = 1) -> Path:
    """Write the bundled clip, 640x360, repeated `times` times."""
    return _ffmpeg(place, ["-stream_loop", str(times - 1)], ["-c", "copy"])


def first_frames(place: Path, count: int) -> Path:
    """Write the first frames of the bundled clip."""
    return _ffmpeg(place, [], ["-frames:v", str(count), "-c:v", "libx264", "-g", "48"])


def tiny(place: Path) -> Path:
    """Write four frames of the bundled clip at 192x108, in which the face is still found."""
    return _ffmpeg(place, [], ["-vf", "scale=192:108", "-frames:v", "4", "-c:v", "libx264"])


def full_hd(place: Path) -> Path:
    """Write the bundled clip at 1920x1080, 96 frames."""
    return _ffmpeg(place, [], ["-vf", "scale=1920:1080", "-frames:v", "96", "-c:v", "libx264", "-b:v", "6M"])


def full_hd_from_camera(place: Path) -> Path:
    """Write the same with a sensor's noise, at the bit rate of cameras and phones, some 16 Mbit/s."""
    noisy = "scale=1920:1080,noise=alls=6:allf=t"
    return _ffmpeg(place, [], ["-vf", noisy, "-frames:v", "96", "-c:v", "libx264", "-b:v", "12M"])


def doubled(place: Path) -> Path:
    """Write the bundled clip as MJPEG, 48 frames a second from 24, 192 frames: each picture appears twice."""
    return _ffmpeg(place, [], ["-vf", "fps=48", "-frames:v", "192", "-c:v", "mjpeg", "-q:v", "3"])


def still_screen(place: Path) -> Path:
    """Write one picture of it at 1280x720 for 96 frames, as in a lossless screen recording."""
    still = "select=eq(n\\,40),loop=95:1,setpts=N/24/TB,scale=1280:720"
    return _ffmpeg(place, [], ["-vf", still, "-frames:v", "96", "-c:v", "libx264", "-qp", "0", "-preset", "ultrafast"])


def small_face_from_camera(place: Path, width_px: int = 1920, *, frames: int = 96) -> Path:
    """Write a face a sixth of the picture wide, with a sensor's noise: 16 Mbit/s at 1920 px, 64 at 3840."""
    across = width_px // 3
    height_px = width_px * 9 // 16
    noisy = f"scale={across}:-2,pad={width_px}:{height_px}:-1:-1:color=0x707880,noise=alls=7:allf=t"
    mbit = 16 * width_px**2 // 1920**2
    # Without a limit, x264 needs longer than the clip to come down to the rate.
    rate = ["-b:v", f"{mbit}M", "-maxrate", f"{mbit}M", "-bufsize", f"{mbit // 4}M"]
    return _ffmpeg(place, [], ["-vf", noisy, "-frames:v", str(frames), "-c:v", "libx264", *rate])


def five_faces(place: Path) -> Path:
    """Write five copies of the face side by side in 1920x1080, 96 frames."""
    face = "[0:v]crop=360:360:240:0,scale=384:384,split=5[a][b][c][d][e]"
    row = "[a][b][c][d][e]hstack=5,pad=1920:1080:0:348"
    return _ffmpeg(place, [], ["-filter_complex", f"{face};{row}", "-frames:v", "96", "-c:v", "libx264", "-b:v", "6M"])


def _ffmpeg(place: Path, before: list[str], after: list[str]) -> Path:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *before, "-i", str(_SOURCE), "-an", *after]
    subprocess.run([*command, str(place)], check=True)
    return place
