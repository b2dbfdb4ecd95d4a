"""The README's picture: frames of the demo clip with what the published tables say of them.

    featray demo && python infra/readme/picture.py demo-output infra/readme/faces.jpg

Boxes and landmarks come from the `faces` table and are drawn on the frame with that index,
so the picture also shows that coordinates and times are right.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from featray.config import DecodeConfig, EveryNth
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.units import WHOLE_VIDEO

EVERY = 118
CLIP = Path(__file__).parents[2] / "featray" / "demo_clips" / "face.mp4"
BOX = ("box_x1", "box_y1", "box_x2", "box_y2")
SQL = f"SELECT frame_index, {', '.join(BOX)}, score, pts_us, landmarks5 FROM faces WHERE frame_index % {EVERY} = 0"


def main(out: str, picture: str) -> None:
    """Draw four frames side by side."""
    faces = {row["frame_index"]: row for row in run_sql(connect(open_output(out)), SQL).read_all().to_pylist()}
    sheet = Image.new("RGB", (4 * 320, 180))
    with CLIP.open("rb") as file:
        settings = DecodeConfig(sample=EveryNth(every=EVERY))
        for i, frame in enumerate(decode_pyav(file, WHOLE_VIDEO[0], settings, DecodeAccount())):
            image = Image.fromarray(frame.rgb())
            draw, face = ImageDraw.Draw(image), faces[frame.index]
            draw.rectangle([face[name] for name in BOX], outline="#ffd400", width=4)
            for x, y in zip(face["landmarks5"][::2], face["landmarks5"][1::2], strict=True):
                draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill="#00e0ff")
            text = f"frame {frame.index}   {face['pts_us'] / 1e6:.3f} s   score {face['score']:.3f}"
            draw.text((12, 330), text, fill="white", font_size=22)
            sheet.paste(image.resize((320, 180)), (i * 320, 0))
    sheet.save(picture, quality=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
