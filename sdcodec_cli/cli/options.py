"""Options that several commands share, declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import wrong

if TYPE_CHECKING:
    from ..audio import WriteOptions
    from ..engine.batch import Say
    from ..engine.codec import Codec
    from ..engine.files import Job, Selection
    from ..engine.films import Soundtrack
    from ..engine.separator import Separator

Device = Literal["auto", "cpu", "cuda", "mps"]
Runtime = Literal["auto", "onnx", "torch"]
FormatName = Literal[
    "wav", "wav-24", "wav-float", "flac", "flac-24", "ogg", "opus", "mp3", "m4a", "m4a-alac"
]  # audio.FormatName
ProgressForm = Literal["auto", "json"]

LARGEST = 1e9
"""Largest number that an option takes: as seconds some thirty years, and a float still tells samples apart there."""


def say_runtime(say: Say, codec: Codec | Separator, asked: Runtime) -> None:
    """Say that a model runs in torch because it has no graphs, where nobody asked for torch."""
    if asked == "auto" and codec.runtime == "torch" and codec.device == "cpu":
        say(f"{codec.name}: has no graphs and runs in torch, which starts slowly; sdc models export makes them")


def select(*, skip_existing: bool, force: bool, shard: str | None) -> Selection:
    """Which inputs `--skip-existing` and `--shard` leave to this command; wrong values end it."""
    from ..engine.batch import parse_shard
    from ..engine.files import Selection

    if skip_existing and force:
        wrong("--skip-existing keeps what --force would replace; leave one of them out")
    try:
        return Selection(skip_existing=skip_existing, shard=None if shard is None else parse_shard(shard))
    except ValueError as error:
        wrong(f"--shard {error}")


def write_options(form: FormatName | None, bitrate: float | None, *, rescale: bool, film: bool = False) -> WriteOptions:
    """How audio is written, after `--format`, `--audio-bitrate` and `--rescale`; what contradicts itself ends it."""
    from ..audio import WriteOptions

    if film:
        if form:
            wrong("--format is of sound alone, and this writes a film; leave it out, or choose --audio-codec")
        if rescale:
            wrong(
                "--rescale is of sound alone, and this writes a film; leave it out, or write a .wav instead of a film"
            )
        return WriteOptions()
    try:
        return WriteOptions(format=form, bitrate=bitrate, rescale=rescale)
    except ValueError as error:
        wrong(f"--audio-bitrate {bitrate:g}: {error}")


def count_processes(wanted: int, jobs: tuple[Job, ...]) -> int:
    """In how many processes inputs are worked on; standard input and output are those of this one."""
    from ..engine.batch import processes_for

    processes = processes_for(wanted, jobs)
    if processes > 1 and any("-" in (job.source, *job.targets.values()) for job in jobs):
        wrong(f"--jobs {wanted}: standard input and output cannot be shared by processes; leave --jobs out")
    return processes


def check_codebooks(codec: Codec, num_codebooks: int | None) -> None:
    """End the command unless the model codes with so many codebooks."""
    try:
        codec.allocate(num_codebooks)
    except ValueError as error:
        wrong(f"--codebooks {num_codebooks}: {error}")


def outputs_of(stem: list[str], without: list[str], *, summed: bool, default: str) -> list[str]:
    """Names of what is written, after `--stem`, `--without` and `--sum`."""
    from ..engine.stems import sum_of
    from ..engine.stems import without as all_but

    for option, names in (("--stem", stem), ("--without", without)):
        for name in names:
            if "," in name:
                each = " ".join(f"{option} {part.strip()}" for part in name.split(","))
                wrong(f"{option} {name}: takes one domain at a time; give {each}")
    if summed and (len(set(stem)) < 2 or {"all", "mix"} & set(stem)):
        wrong("--sum: of what? name two domains or more with --stem")
    stems = [sum_of(stem)] if summed else stem
    return [*stems, all_but(without)] if without else stems or [default]


def soundtrack_of(
    film: bool,
    outputs: list[str],
    *,
    add: bool,
    codec: str | None,
    bitrate: float | None,
    language: str | None,
    title: str | None,
) -> Soundtrack | None:
    """How sound gets into a film; None for sound alone, which has no such options."""
    from ..engine.films import Soundtrack

    if not film:
        given = {"--add-track": add, "--audio-codec": codec, "--language": language, "--title": title}
        for name, value in given.items():
            if value not in (None, False):
                wrong(f"{name} is of films, and this writes sound alone; ask for a film with --film, or leave it out")
        return None
    if add and title is None:
        title = ", ".join(output.replace("-", " ").replace("+", " + ") for output in outputs)
    try:
        return Soundtrack(codec=codec, bitrate=bitrate, add=add, language=language, title=title)
    except ValueError as error:
        wrong(f"--{str(error).removeprefix('soundtrack.')}")


def parse_share(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is not a number from 0 to 1")
    return value


def parse_envelope(text: str) -> str:
    """A share, or `off`."""
    return text if text == "off" else str(parse_share(text))


def parse_names(text: str) -> str:
    """Names separated by commas, each once."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise typer.BadParameter(f"{text!r} is not a list of domains such as speech,music")
    return ",".join(names)


def complete_model(incomplete: str) -> list[str]:
    """Names of the models in the zoo, for the shell."""
    from ..zoo import list_models

    return [entry.name for entry in list_models() if entry.name.startswith(incomplete)]


def parse_positive(text: str) -> float:
    """A number above zero."""
    value = _number(text)
    if not 0 < value <= LARGEST:
        raise typer.BadParameter(f"{text!r} is not a number above 0, and at most {LARGEST:g}")
    return value


def parse_start(text: str) -> float:
    """A time in seconds, from 0."""
    value = _number(text)
    if not 0 <= value <= LARGEST:
        raise typer.BadParameter(f"{text!r} is not a number of seconds from 0 to {LARGEST:g}")
    return value


def parse_level(text: str) -> float:
    """A loudness in LUFS."""
    value = _number(text)
    if not -70 <= value <= 0:
        raise typer.BadParameter(f"{text!r} is not a level from -70 to 0 LUFS")
    return value


def parse_length(text: str) -> float:
    """A length in seconds, from 1."""
    value = _number(text)
    if not 1 <= value <= LARGEST:
        raise typer.BadParameter(f"{text!r} is not a number of seconds from 1 to {LARGEST:g}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def parse_decibels(text: str) -> float:
    """A gain in dB."""
    value = _number(text)
    if not -100 <= value <= 40:
        raise typer.BadParameter(f"{text!r} is not a gain from -100 to 40 dB")
    return value


def parse_snr(text: str) -> float:
    """A ratio of levels in dB."""
    value = _number(text)
    if not -40 <= value <= 100:
        raise typer.BadParameter(f"{text!r} is not a number of dB from -40 to 100")
    return value


@dataclass(frozen=True)
class Gain:
    """Value of one `--gain`."""

    stem: str
    db: float


def parse_gain(text: str) -> Gain:
    """`speech=-6` as a stem and decibels."""
    stem, _, value = text.partition("=")
    db = _number(value)
    if not stem or not -100 <= db <= 40:
        raise typer.BadParameter(f"{text!r} is not STEM=DB with a gain from -100 to 40 dB, such as speech=-6")
    return Gain(stem, db)


AudioInputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Audio files or films, folders to search for them, or - for standard input.",
        show_default=False,
    ),
]
StreamInputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files made by sdc compress, folders to search for them, or - for standard input.",
        show_default=False,
    ),
]
StreamOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR/|-",
        help="File for one output, folder (existing, or ending in a slash) for several, or - for standard output.",
        show_default=False,
    ),
]
StreamInput = Annotated[
    str,
    typer.Argument(metavar="INPUT", help="File made by sdc compress, or - for standard input.", show_default=False),
]
EditOutput = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR/|-",
        help="File for the output, folder (existing, or ending in a slash) for one named after the input, or - for "
        "standard output.",
        show_default=False,
    ),
]
SpeechInputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files made by sdc compress, audio files or films, folders to search for them, or - for standard input.",
        show_default=False,
    ),
]
SpeechOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR/|-",
        help="File (.sdc, .wav, .flac, .ogg, .opus, .mp3 or .m4a) for one output, folder (existing, or ending in a "
        "slash) for several, or - for WAV on standard output.",
        show_default=False,
    ),
]
SdcOption = Annotated[
    bool,
    typer.Option("--sdc", help="Write .sdc and not WAV, beside the inputs, into a folder, or to standard output."),
]
ChannelsOption = Annotated[
    Literal["mono", "keep"],
    typer.Option(help="What becomes of the channels of audio: keep codes each by itself, mono mixes them down to one."),
]
AudioOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR/|-",
        help="File (.wav, .flac, .ogg, .opus, .mp3 or .m4a) for one output, folder (existing, or ending in a slash) "
        "for several, or - for WAV on standard output.",
        show_default=False,
    ),
]
FilmOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR/|-",
        help="File (.wav, .flac, .ogg, .opus, .mp3, .m4a; or a film: .mp4, .m4v, .mov, .mkv, .webm) for one output, "
        "folder (existing, or ending in a slash) for several, or - for WAV on standard output.",
        show_default=False,
    ),
]
Without = Annotated[
    list[str],
    typer.Option(
        metavar="DOMAIN",
        help="Write the sum of all domains but this one, to a.without-speech.wav. May be given several times, to leave "
        "out several.",
        show_default=False,
    ),
]
Sum = Annotated[bool, typer.Option("--sum", help="The sum of the domains named with --stem, in one file.")]
AddTrack = Annotated[
    bool,
    typer.Option("--add-track", help="In a film, add a sound track and keep the one that is there, too."),
]
AudioCodec = Annotated[
    Literal["aac", "opus", "flac", "alac"] | None,
    typer.Option(
        "--audio-codec",
        help="How sound in a film is coded; by default AAC in .mp4 and .mov, FLAC in .mkv, Opus in .webm.",
        show_default=False,
    ),
]
AudioBitrate = Annotated[
    float | None,
    typer.Option(
        "--audio-bitrate",
        metavar="KBPS",
        parser=parse_positive,
        help="Bitrate of Ogg Vorbis, Opus, MP3 and AAC files, and of sound in films, in kbit/s for all channels "
        "together. By default what the encoder chooses; of AAC and in films 96 for each channel, or there 80 for Opus.",
        show_default=False,
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        metavar="CODE",
        help="Language of a film's new sound track, three letters such as eng; that of the former one by default.",
        show_default=False,
    ),
]
Title = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Title of a film's new sound track; that of the former one by default, or what it is made of with "
        "--add-track.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    FormatName | None,
    typer.Option(
        "--format",
        help="Format of audio, also on standard output: WAV and FLAC of 16 or 24 bits, WAV of floats, which keeps what "
        "is beyond full scale, Ogg Vorbis, Opus, MP3, and AAC or ALAC in .m4a; by default that of the suffix, or WAV "
        "of 16 bits.",
        show_default=False,
    ),
]
Rescale = Annotated[
    bool,
    typer.Option(
        "--rescale",
        help="Where an output would go beyond full scale, make all outputs of that input softer alike. Otherwise "
        "samples are limited, or kept as they are in WAV of floats.",
    ),
]
ProgressOption = Annotated[
    ProgressForm,
    typer.Option(
        "--progress",
        help="How to show progress on standard error: a bar if that is a terminal (auto), or events for programs, one "
        "JSON object per line (json).",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|DIR",
        help="Model, by its name in `sdc models list` or by its folder; the first of that list by default.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
SpeechModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|DIR",
        help="Model, by its name in `sdc models list` or by its folder; by default the one that a .sdc file names, and "
        "for audio the first of that list that can do this.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
DeviceOption = Annotated[
    Device,
    typer.Option(
        "--device", envvar="SDC_DEVICE", help="Where to compute; auto takes CUDA, else Apple's MPS, else the CPU."
    ),
]
RuntimeOption = Annotated[
    Runtime,
    typer.Option(
        "--runtime",
        envvar="SDC_RUNTIME",
        help="What computes: ONNX Runtime, on the CPU, or torch. auto takes torch for CUDA and MPS, and for models "
        "without graphs.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        max=1024,
        help="Threads to compute with on a CPU; as many as there are free cores by default.",
        show_default=False,
    ),
]
Codebooks = Annotated[
    int | None,
    typer.Option(
        "--codebooks",
        metavar="N",
        min=1,
        max=64,  # bitstream.limits.MAX_CODEBOOKS
        help="How many codebooks code each active domain: fewer take less, and sound worse. In the default model each "
        "is half a kbit/s; it has 12, and takes 11 beside a fine envelope. Where a model is several codecs, this "
        "is for the lowest one, and the others follow in proportion. Some models need all of theirs.",
        show_default=False,
    ),
]
Effort = Annotated[
    int | None,
    typer.Option(
        "--effort",
        metavar="N",
        min=0,
        max=100,  # recipe.MAX_EFFORT
        help="How long to search for codes that bring the decoded mix closer to the audio: steps of analysis by "
        "synthesis, from 0 (fastest) to 100. By default what the model suggests, see sdc models show.",
        show_default=False,
    ),
]
Track = Annotated[
    int,
    typer.Option("--track", metavar="N", min=1, help="Audio track of a film that has several, counted from 1."),
]
Views = Annotated[
    int | None,
    typer.Option(
        "--views",
        metavar="N",
        min=1,
        max=16,  # engine.separate.MAX_VIEWS
        help="Show a codec the audio so many times, inverted or delayed a little, and average the masks that it makes. "
        "More take longer, in proportion. 4 by default; 1 is as in the paper.",
        show_default=False,
    ),
]
Start = Annotated[float, typer.Option(metavar="S", parser=parse_start, help="Begin at this time, in seconds from 0.")]
Below = Annotated[
    float | None,
    typer.Option(
        metavar="HZ",
        parser=parse_positive,
        help="Leave out what lies above this frequency: treble, or upper stages of the model. For files of the default "
        "model it is 8000.",
        show_default=False,
    ),
]
DEFAULT_VIEWS = 4  # engine.separate.DEFAULT_VIEWS
DEFAULT_SHARE = 0.6  # audio.bands.SHARE
TextureOption = Annotated[
    bool,
    typer.Option(
        "--texture/--no-texture",
        help="Make up the fine structure of the sound where codes hold levels only: above 1.4 kHz in the default "
        "model. What the network itself puts there buzzes.",
    ),
]
Fine = Annotated[
    bool | None,
    typer.Option(
        "--fine/--coarse",
        help="A fine envelope has more bands, and more often: about 1.9 kbit/s, for a sound closer to the original. A "
        "coarse one takes half a kbit/s. By default whichever sounds better: in the default model a fine one "
        "beside three codebooks or more, and beside 11 of its 12 if nothing else is asked for.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        metavar="N",
        min=0,
        max=1024,
        help="How many inputs to work on at the same time, each in a process of its own; 0 is one for each core. They "
        "share the cores, unless --threads says otherwise.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N|auto",
        help="Work on one of N parts of the inputs only, 1/N to N/N, where several machines share the work; auto takes "
        "the part that torchrun or a SLURM array says.",
        show_default=False,
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave out inputs whose outputs are all there, as after an interruption."),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing outputs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output, one object per line.")]
