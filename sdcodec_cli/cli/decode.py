"""`sdc decode`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import Progress
from .console import Console, say_audio, source_name, wrong
from .loading import Models
from .options import (
    DEFAULT_SHARE,
    AddTrack,
    AudioBitrate,
    AudioCodec,
    Below,
    DeviceOption,
    FilmOutput,
    Force,
    FormatOption,
    Gain,
    Jobs,
    Json,
    Language,
    ProgressOption,
    Quiet,
    Rescale,
    RuntimeOption,
    ShardOption,
    SkipExisting,
    Start,
    StreamInputs,
    Sum,
    TextureOption,
    Threads,
    Title,
    Track,
    Without,
    complete_model,
    count_processes,
    outputs_of,
    parse_gain,
    parse_positive,
    parse_share,
    select,
    soundtrack_of,
    write_options,
)

if TYPE_CHECKING:
    from ..audio import WriteOptions
    from ..bitstream import Header
    from ..engine.batch import Say
    from ..engine.codec import Codec
    from ..engine.decode import DecodeResult
    from ..engine.files import Job
    from ..engine.films import Soundtrack


@dataclass(frozen=True, kw_only=True)
class _Decode:
    """What is done with one input; each process loads each model once."""

    models: Models
    stems: list[str]
    gains: Mapping[str, float]
    start: float
    duration: float | None
    share: float
    below: float | None
    texture: bool
    film: str | None
    track: int
    soundtrack: Soundtrack | None
    force_model: bool
    write: WriteOptions
    force: bool

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> DecodeResult:
        from ..engine.decode import decode
        from ..engine.stems import check_stems

        def codec(header: Header) -> Codec:
            # Standard input shows only now what it holds.
            check_stems(job.source, header.stems, self.stems, self.gains)
            return self.models.codec_for(say, job.source, header)

        return decode(
            job.source,
            job.targets,
            codec=codec,
            gains=self.gains,
            start=self.start,
            duration=self.duration,
            share=self.share,
            below=self.below,
            texture=self.texture,
            film=self.film,
            track=self.track,
            soundtrack=self.soundtrack,
            force_model=self.force_model,
            write=self.write,
            overwrite=self.force,
            progress=progress,
        )


def decode(
    inputs: StreamInputs,
    output: FilmOutput = None,
    stem: Annotated[
        list[str],
        typer.Option(
            metavar="speech|music|sfx|mix|all",
            help="What to decode: a domain of the file, their sum (mix), or every domain in a file of its own (all). "
            "May be given several times. Default: mix.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    without: Without = [],  # noqa: B006
    sum: Sum = False,
    gain: Annotated[
        list[Gain],
        typer.Option(
            metavar="STEM=DB",
            parser=parse_gain,
            help="Make a domain louder or softer, by itself and in the mix, or the mix as a whole; -100 to 40 dB. May "
            "be given several times. With a gain for any domain, even 0 dB, domains are decoded one by one and "
            "added up. Without, they are decoded together, which is closer to the original.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    start: Start = 0.0,
    length: Annotated[
        float | None,
        typer.Option(
            "--duration",
            metavar="S",
            parser=parse_positive,
            help="Decode this many seconds, above 0; to the end by default.",
            show_default=False,
        ),
    ] = None,
    envelope: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=parse_share,
            help="How much of the file's envelope to apply: 1 has the levels of the original, 0 is closest to its "
            f"waveform. Default: {DEFAULT_SHARE}.",
            show_default=False,
        ),
    ] = None,
    below: Below = None,
    texture: TextureOption = True,
    film: Annotated[
        str | None,
        typer.Option(
            "--film",
            metavar="FILM",
            help="The film that INPUT was made of: write a copy of it, with picture and all else, that has this sound.",
            show_default=False,
        ),
    ] = None,
    track: Track = 1,
    add_track: AddTrack = False,
    audio_codec: AudioCodec = None,
    audio_bitrate: AudioBitrate = None,
    language: Language = None,
    title: Title = None,
    kind: FormatOption = None,
    rescale: Rescale = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Model, by its name in `sdc models list` or by its folder; the one that the file names by default.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    force_model: Annotated[
        bool,
        typer.Option("--force-model", help="Decode although the model's weights are not those the file was made with."),
    ] = False,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "auto",
    threads: Threads = None,
    jobs: Jobs = 1,
    shard: ShardOption = None,
    skip_existing: SkipExisting = False,
    force: Force = False,
    progress: ProgressOption = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Decode .sdc files to audio files.

    Each INPUT becomes a file beside it: a.sdc becomes a.decoded.wav, or a.speech.wav for a domain. The model is the one
    that the file names. Of a damaged file what is left is decoded, and the exit code is 1. With --film the output is a
    copy of that film in which the sound is replaced.

    Example: sdc decode talk.sdc --stem speech -o voice.wav
    """
    from ..engine.batch import threads_for
    from ..engine.films import is_film
    from ..engine.plans import plan_decode
    from ..engine.stems import holds

    console = Console(quiet=quiet, json=json, progress=progress)
    stems = outputs_of(stem, without, summed=sum, default="mix")
    soundtrack = soundtrack_of(
        film is not None,
        stems,
        add=add_track,
        codec=audio_codec,
        bitrate=audio_bitrate,
        language=language,
        title=title,
    )
    if film is None and output is not None and is_film(output):
        wrong(f"-o {output}: where is its picture? name the film that it comes from with --film")
    if film is not None and (start or length):
        wrong("--film: a film has sound from its beginning to its end; leave out --start and --duration")
    if film is None and track != 1:
        wrong(f"--track {track}: is of a film, and there is none; name it with --film, or leave the option out")
    gains = {entry.stem: entry.db for entry in gain}
    if len(gains) < len(gain):
        wrong("--gain: a stem is named twice; give each one gain")
    for name in gains:
        if name not in stems and (name == "mix" or not any(given == "all" or holds(given, name) for given in stems)):
            wrong(f"--gain {name}: nothing that is decoded has it; decode it with --stem {name}, or leave it out")
    write = write_options(kind, audio_bitrate, rescale=rescale, film=soundtrack is not None)
    only = select(skip_existing=skip_existing, force=force, shard=shard)
    todo = console.settle(
        lambda: plan_decode(
            inputs,
            output,
            stems,
            gains,
            overwrite=force,
            only=only,
            film=film,
            soundtrack=soundtrack,
            write=write,
        )
    )
    if film is not None and len(todo) > 1:
        wrong("--film: is the film of one input; name one")

    def show(result: DecodeResult) -> None:
        if envelope is not None and result.envelope is None:
            console.say(f"{source_name(result.input)}: has no envelope, so --envelope changes nothing")
        if result.older_weights is not None:
            console.say(f"{source_name(result.input)}: {_decoded_with(result.older_weights, result)}")
        for note in result.notes:
            console.say(f"{source_name(result.input)}: {note}")
        say_audio(console, result, softer=", or --gain {stem}=-3")
        for problem in result.problems:
            console.fail(f"{source_name(result.input)}: {problem}")
        if result.concealed:
            lost = " and ".join(f"{seconds:.2f} s of {domain}" for domain, seconds in result.concealed.items())
            console.say(f"{source_name(result.input)}: concealed {lost}, made up from what is around them")
        console.result(result)

    processes = count_processes(jobs, todo)
    work = _Decode(
        models=Models(model=model, runtime=runtime, device=device, threads=threads_for(threads, processes)),
        stems=stems,
        gains=gains,
        start=start,
        duration=length,
        share=DEFAULT_SHARE if envelope is None else envelope,
        below=below,
        texture=texture,
        film=film,
        track=track,
        soundtrack=soundtrack,
        force_model=force_model,
        write=write,
        force=force,
    )
    console.work(work, todo, processes=processes, show=show)
    console.finish()


def _decoded_with(older: str, result: DecodeResult) -> str:
    other = f"{result.decoder_weights[:8]}..., which have the same quantizers"
    how = "their own decoder" if older == result.decoder_weights else other
    return f"was made with older weights {older[:8]}...; decoded with {how}"
