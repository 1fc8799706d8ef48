"""The sound of a source video becomes the audio track of a clip: cut to its length, in step with it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph

from wanray.errors import InputError
from wanray.sinks.codecs import AUDIO_ENCODERS

_SAMPLE_RATE = 48000
"""Both AAC and Opus take it."""
_BIT_RATE = 192_000


@dataclass(frozen=True, slots=True)
class AudioSource:
    """Where the sound comes from."""

    data: bytes
    """A whole video file, of any format that FFmpeg reads."""

    @contextmanager
    def open(self) -> Iterator[InputContainer]:
        """The file, opened.

        Raises:
            InputError: it is no video.
        """
        try:
            container = av.open(io.BytesIO(self.data), "r")
        except av.FFmpegError as error:
            raise InputError(f"the source video cannot be opened for its audio: {error}") from None
        with container:
            yield container


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """A track of a container that is being written, and what fills it."""

    container: OutputContainer
    stream: AudioStream
    source: InputContainer

    @staticmethod
    def add(container: OutputContainer, source: InputContainer) -> "AudioTrack | None":
        """A stereo track for the first audio stream of `source`, None if it has none."""
        if not source.streams.audio:
            return None
        encoder = AUDIO_ENCODERS[container.format.name]
        stream = container.add_stream(encoder, rate=_SAMPLE_RATE, layout="stereo")
        assert isinstance(stream, AudioStream)
        stream.codec_context.bit_rate = _BIT_RATE
        return AudioTrack(container, stream, source)

    def mux(self, duration_s: Fraction) -> None:
        """Encode what the source sounds like in its first `duration_s` seconds, or as long as it sounds.

        Raises:
            InputError: it cannot be decoded.
        """
        for frame in _cut(_decode(self.source), _video_start_s(self.source), duration_s):
            self.container.mux(self.stream.encode(frame))
        self.container.mux(self.stream.encode())


def _video_start_s(source: InputContainer) -> float:
    """When the first picture is shown, on the clock that the audio has too."""
    start_s = [
        float(stream.start_time * stream.time_base)
        for stream in source.streams.video
        if stream.start_time is not None and stream.time_base is not None
    ]
    return start_s[0] if start_s else 0.0


def _decode(source: InputContainer) -> Iterator[AudioFrame]:
    try:
        yield from source.decode(source.streams.audio[0])
    except av.FFmpegError as error:
        raise InputError(f"the audio of the source video cannot be decoded: {error}") from None


def _cut(frames: Iterator[AudioFrame], start_s: float, duration_s: Fraction) -> Iterator[AudioFrame]:
    """What is heard from `start_s` on for `duration_s`: silence before a late first frame, no early one."""
    first = next(frames, None)
    if first is None:
        return
    graph = _cutting_graph(first, start_s, round(duration_s * _SAMPLE_RATE))
    for frame in chain([first], frames, [None]):
        graph.push(frame)
        try:
            while True:
                yield cast(AudioFrame, graph.pull())
        except BlockingIOError:
            continue
        except EOFError:
            return


def _cutting_graph(first: AudioFrame, start_s: float, num_samples: int) -> Graph:
    """A filter graph for frames like `first`; what comes out starts at time 0."""
    graph = Graph()
    graph.link_nodes(
        graph.add_abuffer(
            sample_rate=first.sample_rate,
            format=first.format.name,
            layout=first.layout.name,
            time_base=first.time_base,
        ),
        graph.add("asetpts", f"PTS-{start_s:.6f}/TB"),
        graph.add("aresample", f"{_SAMPLE_RATE}:async=1:first_pts=0"),
        graph.add("aformat", "channel_layouts=stereo"),
        graph.add("atrim", f"end_sample={num_samples}"),
        graph.add("abuffersink"),
    ).configure()
    return graph
