"""Files encoded for tests, whose every frame tells its number."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np

from models.video.clip import Clip


def encode(
    times, *, size=(64, 48), fmt="mp4", codec="libx264", gop=250, picture=None, clock=1000, pixel_aspect=None
) -> bytes:
    """A file whose frame k is shown from times[k] (1/clock seconds).

    picture: of all frames, uint8 [H, W, 3], or picture(k) of each; None: flat, of a grey that tells k modulo 49.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=fmt) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, clock)
        stream.codec_context.gop_size = gop
        stream.codec_context.sample_aspect_ratio = pixel_aspect or Fraction(1)
        if codec == "libx264":
            stream.options = {"crf": "1", "bf": "2", "x264-params": "scenecut=0"}
        for k, time in enumerate(times):
            pixels = picture(k) if callable(picture) else picture
            if picture is None:
                pixels = np.full((size[1], size[0], 3), grey(k), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, clock)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def grey(k: int) -> int:
    return 10 + 5 * (k % 49)


def shown(sampled: Clip) -> list[int]:
    """Which frame number each sampled picture is, read from the grey at its centre."""
    middle = sampled.pixels.shape[1] // 2
    return [round((int(picture[middle, middle, 0]) - 9) / 5) for picture in sampled.pixels]
