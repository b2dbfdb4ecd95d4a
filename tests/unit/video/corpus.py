"""A corpus of small videos in every form that we know to be met, made with a bundled ffmpeg.

A variant is a line of ffmpeg's arguments; what is in braces is another variant's file, which
is made first. Each is 160x120 and some 2 s long, so that the whole corpus is made in a minute
on one core. `{counter}` is a picture that changes every frame, `{face}` a real clip.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from functools import cache
from importlib.resources import files
from pathlib import Path

import av
import imageio_ffmpeg

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

_INPUTS = {
    "counter": "-f lavfi -i testsrc2=size=160x120:rate=25:duration=2",
    "long": "-f lavfi -i testsrc2=size=160x120:rate=25:duration=6",
    "odd": "-f lavfi -i testsrc2=size=161x121:rate=25:duration=1",
    "pal": "-f lavfi -i testsrc2=size=176x144:rate=25:duration=2",
    "small": "-f lavfi -i testsrc2=size=128x96:rate=25:duration=1",
    "single": "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.04",
    "tone": "-f lavfi -i sine=frequency=440:duration=2",
    "face": f"-i {files('featray')}/demo_clips/face.mp4 -an -t 2 -vf scale=160:120",
    "bare": f"-i {files('featray')}/demo_clips/no_face.mp4 -an -t 2 -vf scale=160:120",
}

X264 = "-c:v libx264 -preset veryfast"
X265 = "-c:v libx265 -preset ultrafast"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"
TAGGED = "-color_primaries {0} -color_trc {0} -colorspace {0}"

GOOD: dict[str, str] = {
    # H.264 in mp4, and how its timeline can be bent
    "bframes.mp4": f"{{counter}} {X264} -bf 3 -g 12",
    "faststart.mp4": f"{{face}} {X264} -bf 2 -g 24 -movflags +faststart",
    "long.mp4": f"{{long}} {X264} -bf 2 -g 20",
    "fragmented.mp4": f"{{counter}} {X264} -bf 2 -g 12 -movflags frag_keyframe+empty_moov+default_base_moof",
    "fragmented_sidx.mp4": f"{{face}} {X264} -bf 2 -g 12 -movflags dash+frag_keyframe",
    "fragmented_hybrid.mp4": f"{{counter}} {X264} -bf 2 -g 12 -movflags frag_keyframe",
    "edit_list.mp4": "-ss 0.5 -i {bframes.mp4} -c copy",
    "edit_list_end.mp4": "-ss 0.3 -t 0.9 -i {bframes.mp4} -c copy",
    "late_start.mp4": "-itsoffset 3 -i {bframes.mp4} -c copy",
    "late_start.mkv": "-itsoffset 3 -i {bframes.mp4} -c copy",
    "no_edit_list.mp4": "-i {bframes.mp4} -c copy -use_editlist 0",
    "negative_start.mp4": "-itsoffset -0.5 -i {bframes.mp4} -c copy -avoid_negative_ts disabled -use_editlist 0",
    "negative_ctts.mp4": f"{{counter}} {X264} -bf 2 -g 12 -movflags negative_cts_offsets",
    "vfr.mp4": f"{{counter}} -vf 'select=lt(n\\,20)+not(mod(n\\,3))' -fps_mode vfr {X264} -bf 2 -g 8",
    "vfr.mkv": f"{{counter}} -vf setpts='N*N/25/50/TB' -fps_mode passthrough {X264} -bf 2 -g 8",
    "ntsc.mov": f"{{counter}} -r 30000/1001 {X264} -bf 2 -g 15",
    "gap.mp4": f"{{counter}} -vf 'setpts=if(lt(N\\,25)\\,N\\,N+100)/25/TB' -fps_mode passthrough {X264} -bf 2 -g 10",
    "single_frame.mp4": f"{{single}} {X264}",
    "single_frame.webm": f"{{single}} {VP9}",
    "single_gop.mp4": f"{{long}} {X264} -bf 2 -g 9999 -sc_threshold 0",
    "single_gop.webm": "{counter} -c:v libvpx -deadline realtime -cpu-used 8 -g 9999 -auto-alt-ref 0",
    "intra_refresh.mp4": f"{{long}} {X264} -bf 0 -x264-params keyint=20:intra-refresh=1",
    "intra_refresh.ts": f"{{long}} {X264} -bf 0 -x264-params keyint=20:intra-refresh=1",
    # GOPs that lean on their neighbours
    "open_gop.mp4": f"{{counter}} {X264} -x264-params open-gop=1:keyint=12:bframes=3:b-adapt=0",
    "open_gop.mkv": f"{{counter}} {X264} -x264-params open-gop=1:keyint=12:bframes=3:b-adapt=0",
    "open_gop.ts": f"{{long}} {X264} -x264-params open-gop=1:keyint=12:bframes=3:b-adapt=0",
    "open_gop_start.ts": "-ss 1 -i {open_gop.ts} -c copy",
    "open_gop.mpg": "{counter} -c:v mpeg2video -bf 2 -g 12 -b:v 1M -f vob",
    # Turned and mirrored
    **{f"rotate{angle}.mp4": f"-display_rotation {angle} -i {{bframes.mp4}} -c copy" for angle in (0, 90, 180, 270)},
    "hflip.mp4": "-display_hflip -i {bframes.mp4} -c copy",
    "vflip.mp4": "-display_vflip -i {bframes.mp4} -c copy",
    "rotate90_hflip.mp4": "-display_rotation 90 -display_hflip -i {bframes.mp4} -c copy",
    "rotate270_vflip.mov": "-display_rotation 270 -display_vflip -i {bframes.mp4} -c copy",
    "rotate90.mkv": "-display_rotation 90 -i {bframes.mp4} -c copy",
    # Shapes and colours
    "sar.mp4": f"{{counter}} -vf setsar=4/3 {X264}",
    "sar.mpg": "{pal} -vf setsar=16/11 -c:v mpeg2video -b:v 1M -f vob",
    "bt601.mp4": f"{{face}} {X264} {TAGGED.format('smpte170m')}",
    "bt470bg.mp4": f"{{face}} {X264} -color_primaries bt470bg -color_trc gamma28 -colorspace bt470bg",
    "bt709.mp4": f"{{face}} {X264} {TAGGED.format('bt709')}",
    "bt709_full.mp4": f"{{face}} {X264} {TAGGED.format('bt709')} -pix_fmt yuv420p -color_range pc",
    "bt2020.mp4": f"{{face}} {X265} -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc bt2020-10"
    " -colorspace bt2020nc -tag:v hvc1",
    "pq.mp4": f"{{face}} {X265} -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc",
    "yuvj420p.mp4": f"{{face}} {X264} -pix_fmt yuvj420p",
    "smpte240m.mkv": f"{{face}} {X264} {TAGGED.format('smpte240m')}",
    "h264_422.mp4": f"{{face}} {X264} -pix_fmt yuv422p",
    "h264_444.mp4": f"{{face}} {X264} -pix_fmt yuv444p",
    "h264_10bit.mkv": f"{{face}} {X264} -pix_fmt yuv420p10le",
    "h264_rgb.mkv": "{face} -c:v libx264rgb -preset veryfast",
    "gray.mp4": f"{{face}} {X264} -pix_fmt gray",
    "odd_size.mp4": f"{{odd}} {X264} -pix_fmt yuv444p",
    "odd_size.webm": f"{{odd}} {VP9} -pix_fmt yuv420p",
    "cropped.mp4": f"{{odd}} -vf crop=150:90 {X264}",
    "interlaced.mp4": f"{{pal}} {X264} -flags +ildct+ilme -x264-params tff=1 -g 10",
    "interlaced.ts": "{pal} -c:v mpeg2video -vf setfield=tff -flags +ildct+ilme -b:v 1M -g 10 -bf 2",
    # Several streams
    "audio_video.mp4": f"{{counter}} {{tone}} {X264} -bf 2 -g 12 -c:a aac",
    "two_videos.mp4": f"{{counter}} {{small}} -map 0 -map 1 {X264} -bf 2 -g 12",
    "cover_first.mp4": "-i {cover.jpg} -i {bframes.mp4} -map 0 -map 1 -c copy -disposition:v:0 attached_pic",
    "cover_last.mkv": "-i {bframes.mp4} -map 0 -c copy -attach {cover.jpg} -metadata:s:t mimetype=image/jpeg",
    "audio_first.mkv": f"{{tone}} {{counter}} -map 0 -map 1 {X264} -bf 2 -g 12 -c:a libopus",
    # Containers
    "stream.ts": f"{{long}} {{tone}} {X264} -bf 2 -g 12 -c:a aac",
    "wrap.ts": "-i {bframes.mp4} -c copy -output_ts_offset 95442.6 -muxdelay 0",
    "m2ts.m2ts": f"{{counter}} {X264} -bf 2 -g 12 -f mpegts -mpegts_m2ts_mode 1",
    "resized.ts": "concat:{resize_1.ts} {resize_2.ts}",
    "restarted.ts": "concat:{wide.ts} {wide.ts}",
    "mpeg1.mpg": "{counter} -c:v mpeg1video -bf 2 -g 12 -b:v 1M -f mpeg",
    "mpeg4.avi": "{counter} -c:v mpeg4 -bf 0 -g 12 -q:v 4",
    "mpeg4_bframes.avi": "{counter} -c:v mpeg4 -bf 2 -g 12 -q:v 4",
    "h264_bframes.avi": f"{{counter}} {X264} -bf 2 -g 12",
    "mjpeg.avi": "{face} -c:v mjpeg -q:v 3",
    "packed.avi": "pack:{one_bframe.avi}",
    "msmpeg4.avi": "{counter} -c:v msmpeg4v2 -g 12 -q:v 4",
    "raw.avi": "{single} -c:v rawvideo -pix_fmt bgr24",
    "dv.avi": "-f lavfi -i testsrc2=size=720x576:rate=25:duration=0.2 -c:v dvvideo -pix_fmt yuv420p",
    "drops.avi": f"{{counter}} -vf 'select=not(mod(n\\,4))' -fps_mode vfr {X264} -bf 0 -g 5 -enc_time_base 1/25",
    "bframes.mkv": "-i {bframes.mp4} -c copy",
    "streamed.mkv": "-i {bframes.mp4} -c copy -f matroska pipe:",
    "live.webm": "{counter} -c:v libvpx -deadline realtime -cpu-used 8 -g 20 -auto-alt-ref 0 -live 1 -f webm pipe:",
    "theora.ogv": "{face} -c:v libtheora -q:v 7 -g 16",
    "h264.flv": f"{{counter}} {X264} -bf 2 -g 12",
    "streamed.flv": "-i {bframes.mp4} -c copy -f flv pipe:",
    "sorenson.flv": "{counter} -c:v flv -g 12 -q:v 4",
    "wmv2.wmv": "{counter} -c:v wmv2 -g 12 -q:v 4",
    "streamed.asf": "{counter} -c:v msmpeg4 -g 12 -q:v 4 -f asf pipe:",
    "prores.mov": "{face} -c:v prores_ks -profile:v 1",
    "mjpeg.mov": "{face} -c:v mjpeg -q:v 3",
    "h263.3gp": "{pal} -c:v h263 -g 12 -q:v 4",
    "rgb.mov": "{face} -c:v qtrle",
    "mpeg4_bframes.mp4": "{counter} -c:v mpeg4 -bf 2 -g 12 -q:v 4",
    # Other codecs
    "hevc.mp4": f"{{counter}} {X265} -x265-params bframes=3:keyint=12:open-gop=1:log-level=error",
    "hevc_10bit.ts": f"{{counter}} {X265} -pix_fmt yuv420p10le -x265-params bframes=3:keyint=12:open-gop=1",
    "hevc_12bit.mkv": f"{{face}} {X265} -pix_fmt yuv422p12le -x265-params keyint=20",
    "vp8_altref.webm": "{long} -c:v libvpx -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 16 -g 40"
    " -b:v 300k",
    "vp9_altref.webm": "{counter} -c:v libvpx-vp9 -deadline good -cpu-used 8 -auto-alt-ref 6 -lag-in-frames 25 -g 20"
    " -b:v 200k",
    "vp9.mp4": f"{{face}} {VP9} -g 16",
    "vp9_alpha.webm": f"{{counter}} {VP9} -pix_fmt yuva420p -g 16",
    "av1.mp4": "{counter} -c:v libsvtav1 -preset 12 -g 16",
    "av1.webm": "{face} -c:v libsvtav1 -preset 12 -g 16",
    "av1_altref.mkv": "{counter} -c:v libaom-av1 -cpu-used 8 -g 16 -lag-in-frames 25",
    "ffv1.mkv": "{face} -c:v ffv1",
}  # fmt: skip
"""Good and odd videos: every frame of each must come out right."""

CONVERSIONS = {
    # The chroma of an interlaced picture belongs to its fields; ffmpeg's filter minds that if told to.
    **{name: "scale=interl=-1" for name in ("interlaced.mp4", "interlaced.ts", "dv.avi")},
    # Chroma stands left of the middle unless a stream says otherwise; ffmpeg's filter minds that if told to. In
    # 8 bits swscale's converter of its own for these formats takes the nearest chroma sample, wherever it stands.
    **{name: "scale=in_chroma_loc=left" for name in ("bt2020.mp4", "pq.mp4", "h264_10bit.mkv", "hevc_10bit.ts")},
}
"""Filters with which ffmpeg converts these variants as a whole to RGB as the package does."""

PARTS: dict[str, str] = {
    "large.mp4": f"-f lavfi -i testsrc2=size=640x480:rate=25:duration=6 {X264} -bf 2 -g 8",
    "large.mkv": "-i {large.mp4} -c copy",
    "cover.jpg": "{small} -frames:v 1",
    "one_bframe.avi": "{counter} -c:v mpeg4 -bf 1 -g 12 -q:v 4",
    "resize_1.ts": f"{{small}} {X264} -bf 2 -g 10",
    "resize_2.ts": f"{{counter}} {X264} -bf 2 -g 10 -output_ts_offset 1.08",
    "wide.ts": f"{{counter}} {X264} -bf 2 -g 10",
}
"""What other variants are made of, and what single tests need."""


class Corpus:
    """Makes variants on demand into a folder; a file is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The file of a variant."""
        target = self.folder / name
        if not target.exists():
            part = self.folder / f"part.{os.getpid()}.{name}"
            self._make((GOOD | PARTS)[name], part)
            os.replace(part, target)
        return target

    def _make(self, recipe: str, target: Path) -> None:
        words = re.sub(r"\{([^}]+)\}", lambda found: self._input(found[1]), recipe)
        if words.startswith("concat:"):
            target.write_bytes(b"".join(Path(path).read_bytes() for path in words.removeprefix("concat:").split()))
        elif words.startswith("pack:"):
            pack_bframes(Path(words.removeprefix("pack:")), target)
        elif words.endswith("pipe:"):
            target.write_bytes(run_ffmpeg(*shlex.split(words)))
        else:
            run_ffmpeg(*shlex.split(words), str(target))

    def _input(self, name: str) -> str:
        return _INPUTS.get(name) or str(self.path(name))


def run_ffmpeg(*arguments: str) -> bytes:
    """What ffmpeg writes to its standard output, from one thread and without its version in the files."""
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", "-threads", "1", *arguments[:-1], "-threads", "1"]
    done = subprocess.run([*command, arguments[-1]], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def pack_bframes(source: Path, target: Path) -> None:
    """Rewrite MPEG-4 in AVI the way DivX 5 did: a B-frame in the packet of the frame that it leans on."""
    mark, filler = b"\x00\x00\x01\xb2DivX503b1393p", b"\x00\x00\x01\xb6\x57\xff\xff"
    with av.open(source) as plain, av.open(target, "w", format="avi") as packed:
        stream = packed.add_stream_from_template(plain.streams.video[0])
        frames = [(bytes(packet), packet.is_keyframe) for packet in plain.demux(video=0) if packet.size]
        chunks: list[tuple[bytes, bool]] = []
        for data, is_key in frames:
            at = data.index(b"\x00\x00\x01\xb6")
            if data[at + 4] >> 6 == 2:  # a B-frame
                chunks[-1] = (chunks[-1][0] + data, chunks[-1][1])
                chunks.append((filler, False))
            else:
                chunks.append((data[:at] + mark + data[at:] if is_key else data, is_key))
        for i, (data, is_key) in enumerate(chunks):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, i, i, is_key
            packed.mux(packet)


@cache
def reference(path: Path) -> tuple[tuple[int, str], ...]:
    """What ffmpeg itself makes of a file: time in microseconds and MD5 of each RGB frame, in order."""
    convert = CONVERSIONS.get(path.name, "null")
    out = run_ffmpeg(
        *(
            "-copyts",
            "-i",
            str(path),
            "-map",
            "0:V:0",
            "-vf",
            convert,
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "demux",
        ),
        *("-noautoscale", "-pix_fmt", "rgb24", "-c:v", "rawvideo", "-f", "framemd5", "pipe:"),
    ).decode()
    base = re.search(r"^#tb 0: (\d+)/(\d+)$", out, re.M)
    assert base, out
    num, den = int(base[1]), int(base[2])
    rows = [line.split(",") for line in out.splitlines() if line and not line.startswith("#")]
    return tuple((round(int(row[2]) * num * 1_000_000 / den), row[5].strip()) for row in rows)
