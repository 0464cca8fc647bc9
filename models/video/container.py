"""An opened clip within limits: nothing a header says is believed.

The packets are listed first (cheap, no decoding), so the duration is known also where the container does not tell it, or
lies. Frames are addressed by presentation time, never by number.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.error import FFmpegError

REASONS = (
    "empty_file",
    "unreadable",
    "no_video_stream",
    "not_a_video",
    "decode_error",
    "no_frames",
    "too_large",
    "too_long",
    "not_found",
    "bad_name",  # not UTF-8: no table can name it, nothing can open it
    "unreachable",  # the store did not answer: the file may be fine
    "changed",  # other bytes than those that were ingested under this name
    "damaged",  # more of its frames are missing or broken than may be
)
# What says nothing of the file: it is tried again another time.
PASSING = ("not_found", "unreachable")

# Containers of video and nothing else: FFmpeg's playlist formats would open other files that a text names.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,live_flv,asf,ogg,h264,hevc,obu,ivf,av1,vp8,vp9,"
    "dv,mxf,nut,rm,swf,wtv,gif,mjpeg,mjpeg_2000,image2,png_pipe,jpeg_pipe,gif_pipe,bmp_pipe,webp_pipe,wav,mp3,aac,flac"
)
_STILL_IMAGES = ("image2", "_pipe")  # demuxers of pictures: their names are `image2` or end in `_pipe`
_MOST_SIDE = 32768  # pixels
MOST_FPS = 1000.0  # of any camera
_STRETCHES = 8  # of a long clip that are looked into
_SEEK_GAP_S = 2.0  # a seek costs about as much as decoding this much video: below it, just decode on


@dataclass(frozen=True)
class Limits:
    """What a decode may cost at most; a file beyond a limit is refused, not shortened.

    max_damage: share of a file's frames that may be missing or broken; probe_frames: so many of them are decoded to know.
    """

    max_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 8192 * 4320
    max_seconds: float = 3600.0
    max_frames: int = 250_000
    max_damage: float = 0.8
    probe_frames: int = 128


class MediaError(Exception):
    """A file that gives no frames. `reason`, one of REASONS, is for programs; the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}; expected one of {REASONS}")
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):  # the error travels between processes
        return MediaError, (self.reason, str(self))


@dataclass(frozen=True)
class Index:
    """Presentation times of all packets and of the keyframes, seconds, sorted; duration in seconds."""

    times: Sequence[float]
    keyframes: Sequence[float]
    duration: float

    def on_screen(self, count: int) -> list[float]:
        """Times of the frames that are on screen at the `count` target times."""
        targets = (self.times[0] + (i + 0.5) * self.duration / count for i in range(count))
        # the small slack keeps a target that falls exactly on a frame's start from slipping to the frame before it
        return [self.times[bisect_right(self.times, t + 1e-6) - 1] for t in targets]


class Container:
    """An opened clip within its limits, with the index of its packets."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        _check_size(len(data), limits)
        self.data, self.limits = data, limits
        self.errors = self.decoded = 0
        self._open_stream()
        try:
            self.index = self._list_packets()
        except BaseException:
            self.container.close()
            raise

    def _open_stream(self) -> None:
        self.container = _open(self.data)
        try:
            self.stream = _video_stream(self.container)
            self.stream.codec_context.thread_count = 1  # many clips decode side by side: one thread each
            _check_pixels(self.stream.codec_context, self.limits)
        except BaseException:
            self.container.close()
            raise

    @property
    def pixel_aspect(self) -> float:
        """Width of a stored pixel divided by its height; 1 where the file does not say."""
        return float(self.stream.sample_aspect_ratio or 1)

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *exc: object) -> None:
        self.container.close()

    def _list_packets(self) -> Index:
        """Read all packets without decoding. A container that breaks off midway counts as far as it goes."""
        base, has_clock = float(self.stream.time_base), False
        times: list[float] = []
        keys: list[float] = []
        spans: list[float] = []
        for packet in self._demux():
            if packet.size == 0 or packet.is_discard:
                continue
            stamp = packet.pts if packet.pts is not None else packet.dts
            has_clock = has_clock or stamp is not None
            if stamp is None:  # a raw stream has no clock: its nominal rate is all there is
                stamp = len(times) / float(self.stream.guessed_rate or 25) / base
            times.append(stamp * base)
            spans.append((packet.duration or 0) * base)
            if packet.is_keyframe:
                keys.append(stamp * base)
            if len(times) > self.limits.max_frames:
                raise MediaError("too_long", f"more than {self.limits.max_frames} frames")
        if not times:
            raise MediaError("no_frames", "the video stream holds no packets")
        last = int(np.argmax(times))
        first, end = min(times), times[last]
        interval = (end - first) / (len(times) - 1) if len(times) > 1 else 1 / float(self.stream.guessed_rate or 25)
        duration = end - first + (spans[last] or interval)
        if duration <= 0:
            duration = interval * len(times) or 1 / 25
        if duration > self.limits.max_seconds:
            raise MediaError("too_long", f"{duration:.1f} s of video, the limit is {self.limits.max_seconds:.1f} s")
        # Without a clock no frame can be told from another one but by counting them from the begin.
        return Index(sorted(times), sorted(keys) if has_clock else [], duration)

    def decode(self, start: float | None = None) -> Iterator[av.VideoFrame]:
        """Frames in presentation order from the keyframe at or before `start` seconds, stepping over broken packets."""
        at = self.index.times[0] if start is None else start
        for packet in self._packets_from(at):
            yield from self._decode_packet(packet)

    def _demux(self) -> Iterator[av.Packet]:
        """Packets until the container ends or breaks off."""
        try:
            yield from self.container.demux(self.stream)
        except (FFmpegError, IndexError):  # PyAV does not know a stream that a broken container begins in its middle
            self.errors += 1

    def _packets_from(self, at: float) -> Iterator[av.Packet]:
        """Packets from the keyframe at or before a time on."""
        place = bisect_right(self.index.keyframes, at + 1e-6)
        key = self.index.keyframes[place - 1] if place else None
        if key is not None:
            try:
                self.container.seek(int(key / float(self.stream.time_base)), stream=self.stream, backward=True)
                early, packets = [], self._demux()
                for packet in packets:
                    early.append(packet)
                    if packet.is_keyframe:
                        break
                if early and early[-1].is_keyframe and self._begins_by(early[-1], key):
                    yield from early
                    yield from packets
                    return
            except FFmpegError:
                pass
        # A stream without an index lands somewhere behind: what lies between would be lost. Read on from the begin.
        self.container.close()
        self._open_stream()
        arrived = key is None or key == self.index.keyframes[0]
        for packet in self._demux():
            if key is not None and not arrived:
                arrived = packet.is_keyframe and packet.pts is not None and not self._begins_by(packet, key, -2e-6)
            if arrived:
                yield packet

    def _begins_by(self, packet: av.Packet, time: float, slack: float = 1e-6) -> bool:
        return packet.pts is not None and packet.pts * float(self.stream.time_base) <= time + slack

    def _decode_packet(self, packet: av.Packet) -> Iterator[av.VideoFrame]:
        try:
            frames = packet.decode()
        except FFmpegError:
            self.errors += 1
            return
        for frame in frames:
            self.decoded += 1
            if self.decoded > self.limits.max_frames:
                raise MediaError("too_long", f"more than {self.limits.max_frames} frames")
            _check_pixels(frame, self.limits)
            yield frame

    def frames_towards(self, wanted: Sequence[float]) -> Iterator[tuple[float, av.VideoFrame]]:
        """(time, frame) in order, jumping over what lies between one wanted time and the keyframe before the next."""
        done, now, base = 0, None, float(self.stream.time_base)
        while done < len(wanted):
            entry = self._entry(wanted[done], now)
            if entry is None and now is not None:
                return
            for frame in self.decode(entry):
                if frame.pts is None:  # no clock: the n-th frame that comes out is the n-th to be shown
                    time = self.index.times[min(self.decoded, len(self.index.times)) - 1]
                else:
                    time = frame.pts * base
                # Some AVI files stamp reordered frames wrongly. Frames come in the right order: time never runs back.
                now = time if now is None else max(now, time)
                yield now, frame
                while done < len(wanted) and wanted[done] <= now:
                    done += 1
                if done == len(wanted) or self._entry(wanted[done], now) not in (None, entry):
                    break  # `entry` itself comes up again where a seek lands too early: then decode on
            else:
                return

    def promised(self) -> int:
        """Frames that the file should have: its packets, or what its header tells where that is more.

        Of what a movie tells, frames and seconds, the smaller one is taken: it counts also what its edit list does not show.
        An AVI counts ticks of its clock. In Matroska it is a note of the muxer's. Others have no such header.
        """
        found, duration = len(self.index.times), self.index.duration
        told = self._told_seconds()
        if not told or found / duration > MOST_FPS:
            return found
        frames = round(found * told / duration)
        if self.container.format.name.startswith("mov"):
            frames = min(frames, self.stream.frames)
        return max(found, min(frames, self.limits.max_frames))

    def _told_seconds(self) -> float:
        """Length of the video as its container tells it, 0 where it does not."""
        name, stream = self.container.format.name, self.stream
        if name == "avi":
            return float(stream.frames * stream.time_base)
        if name.startswith("mov"):
            return float((stream.duration or 0) * stream.time_base)
        try:
            hours, minutes, seconds = map(float, stream.metadata.get("DURATION", "").split(":"))
        except ValueError:
            return 0.0
        return 3600 * hours + 60 * minutes + seconds - max(self.index.times[0], 0.0)  # it tells when the video ends

    def examine(self) -> tuple[int, int]:
        """Frames tried and how many of them decode unbroken: all of a short clip, of a long one stretches behind keyframes
        that lie evenly in it. Packets are counted in the order of the file: clocks run back, two fields make one frame."""
        most, total = self.limits.probe_frames, len(self.index.times)
        self.container.close()
        self._open_stream()
        room = -(-most // _STRETCHES) if total > most else total
        starts = [place * (total - room) // (_STRETCHES - 1) for place in range(_STRETCHES)] if total > most else [0]
        tried = bad = frames = left = 0
        first: int | None = None

        def feed(packet: av.Packet | None) -> None:
            nonlocal frames, bad
            came, broken = self._tried(packet, first)
            frames, bad = frames + came, bad + broken

        for number, packet in enumerate(packet for packet in self._demux() if packet.size):
            if not left and starts and number >= starts[0] and (packet.is_keyframe or number == 0):
                starts = [start for start in starts if start > number]
                # What fewer keyframes leave undone is made up for.
                left, first = max(room, most - tried - room * len(starts)), packet.pts
                self.stream.codec_context.flush_buffers()
            if left:
                feed(packet)
                tried, left = tried + 1, left - 1
                if not left:
                    feed(None)
        if left:
            feed(None)
        return tried, max(tried - max(bad, tried - 2 * frames), 0)

    def _tried(self, packet: av.Packet | None, first: int | None) -> tuple[int, int]:
        """Frames that come of a packet, and how many broken ones, a packet that gives none counted; None: what the decoder
        still holds. Frames before the keyframe that was entered at lean on what was not read."""
        try:
            frames = self.stream.codec_context.decode(packet)
        except (FFmpegError, EOFError):
            return 0, int(packet is not None)
        shown = [frame for frame in frames if first is None or frame.pts is None or frame.pts >= first]
        return len(frames), sum(frame.is_corrupt for frame in shown)

    def _entry(self, target: float, now: float | None) -> float | None:
        """The keyframe to enter at for `target`, or None where decoding on from `now` is as cheap."""
        place = bisect_right(self.index.keyframes, target)
        if place == 0:
            return None
        key = self.index.keyframes[place - 1]
        start = self.index.times[0] if now is None else now
        return key if key > start + _SEEK_GAP_S else None

    def nothing_decoded(self) -> MediaError:
        if self.errors:
            return MediaError("decode_error", f"no frame could be decoded ({self.errors} errors)")
        return MediaError("no_frames", "the video stream gave no frame")


def _open(data: bytes) -> av.container.InputContainer:
    try:
        # one real AVI carries metadata that is not UTF-8 and would kill a strict open
        return av.open(io.BytesIO(data), metadata_errors="replace", options={"format_whitelist": _CONTAINERS})
    except (FFmpegError, ValueError, OSError) as error:
        if _is_text(data):
            raise MediaError("not_a_video", "this is a text file") from error
        raise MediaError("unreadable", f"no container that could be opened: {error}") from error


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    name = container.format.name
    if name in _STILL_IMAGES or name.endswith(_STILL_IMAGES[1]) or name == "tty":
        raise MediaError("not_a_video", f"this is a picture or a text, not a video ({name})")
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic:  # the cover of a song is no video
            if stream.codec_context is None:
                raise MediaError("decode_error", "no decoder for this video codec")
            return stream
    raise MediaError("no_video_stream", "the file has no video stream")


def _is_text(data: bytes) -> bool:
    head = data[:4096]
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)


def _check_size(size: int, limits: Limits) -> None:
    if size == 0:
        raise MediaError("empty_file", "the file is empty")
    if size > limits.max_bytes:
        raise MediaError("too_large", f"{size} bytes, the limit is {limits.max_bytes}")


def _check_pixels(picture: av.VideoFrame | av.VideoCodecContext, limits: Limits) -> None:
    pixels = picture.width * picture.height
    if pixels > limits.max_pixels or max(picture.width, picture.height) > _MOST_SIDE:
        raise MediaError(
            "too_large",
            f"{picture.width}x{picture.height} pixels, the limit is {limits.max_pixels} in all and {_MOST_SIDE} a side",
        )
