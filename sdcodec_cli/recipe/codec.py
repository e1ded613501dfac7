"""Tables of recipes that codecs have in common: autoencoder, quantizers, discriminators, weights of losses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from ..bitstream.entries import GROUP_CODEBOOKS
from ..bitstream.limits import MAX_CODEBOOK_SIZE, MAX_CODEBOOKS, MAX_HOP_LENGTH
from .checks import require, require_averages, require_not_negative, require_positive, require_range
from .fields import ModelFields, TrainingFields

MAX_EFFORT = 100
"""Steps of analysis by synthesis beyond which nothing is gained that anyone would wait for."""

MAX_LSTM_LAYERS, MAX_LSTM_CONTEXT = 4, 100
"""Of an LSTM: a layer takes a step for each frame of its context, and what it sees has to be computed around blocks."""


@dataclass(frozen=True, kw_only=True)
class CodecModelFields(ModelFields):
    """What a codec takes and gives."""

    hop_length: int = 320
    """Samples per frame."""
    latent_dim: int = 1024
    """Channels of the latent."""
    activity: bool = False
    """Whether a head on the latent tells which domains are active."""
    effort: int = 0
    """Steps of analysis by synthesis that encoding takes unless told otherwise, see `engine.refine`."""
    fine_codebooks: int = 0
    """Codebooks that encoding keeps of each domain beside a fine envelope, which it then makes unless told otherwise,
    see `engine.codec.Codec.allocate`; 0 for all of them, and an envelope that is not fine."""
    texture: float = 0.0
    """Frequency in Hz from which on codes say levels only, so that decoding makes up the fine structure, see
    `engine.texture`; 0 for none."""
    causal: bool = False
    """Whether networks, which are convolutional then, see nothing of what comes after a frame: a delay of one frame."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("model.hop_length", self.hop_length, 1, MAX_HOP_LENGTH)
        require_positive("model.latent_dim", self.latent_dim)
        require_range("model.effort", self.effort, 0, MAX_EFFORT)
        require_range("model.fine_codebooks", self.fine_codebooks, 0, MAX_CODEBOOKS)
        lowest = self.sample_rate / self.hop_length
        require(
            self.texture == 0 or lowest <= self.texture < self.sample_rate / 2,
            f"model.texture must be 0 or from {lowest:g} Hz, a frame's frequency, to below half of the sample rate, "
            f"got {self.texture:g}",
        )


@dataclass(frozen=True, kw_only=True)
class NetworkFields:
    """One half of the autoencoder; `kind` says which of the other fields apply."""

    kind: Literal["conv", "spectral"] = "conv"
    """`conv`: strided convolutions on samples (DAC). `spectral`: ConvNeXt blocks on a short-time spectrum."""
    width: int = 64
    """Channels: of the first convolution (conv), or of every block (spectral)."""
    strides: tuple[int, ...] = ()
    """conv: stride of each stage; their product is the hop length."""
    upsampling: Literal["exact", "dac", "sdcodec"] = "exact"
    """conv decoder: how odd strides are trimmed; the latter two reproduce published weights."""
    lstm_layers: int = 0
    """conv: layers of an LSTM on the latent, behind the encoder's convolutions or before the decoder's; a BiLSTM unless
    the model is causal."""
    lstm_context: int = 0
    """conv: frames before each frame, and behind it unless the model is causal, that a layer of it sees."""
    window_length: int = 0
    """spectral: samples under one window."""
    context_window_length: int = 0
    """spectral encoder: samples under a second, longer window, of which it sees magnitudes; 0 for none."""
    depth: int = 0
    """spectral: number of blocks."""
    dilations: tuple[int, ...] = ()
    """spectral: how many frames the taps of each block's convolution are apart; 1 in all of them if left empty."""

    @property
    def block_dilations(self) -> tuple[int, ...]:
        """spectral: the dilation of each block."""
        return self.dilations or (1,) * self.depth

    def __post_init__(self) -> None:
        require(self.width > 0, f"width must be positive, got {self.width}")
        if self.kind == "conv":
            require(len(self.strides) > 0, "a conv network needs strides")
            require(all(s >= 2 for s in self.strides), f"strides must be at least 2, got {list(self.strides)}")
            require(
                self.window_length == self.context_window_length == self.depth == len(self.dilations) == 0,
                "window_length, context_window_length, depth and dilations belong to spectral networks",
            )
            require_range("lstm_layers", self.lstm_layers, 0, MAX_LSTM_LAYERS)
            if self.lstm_layers:
                require_range("lstm_context", self.lstm_context, 1, MAX_LSTM_CONTEXT)
            else:
                require(self.lstm_context == 0, "lstm_context is for an LSTM: set lstm_layers, or leave it out")
        else:
            require(self.strides == (), "strides belong to conv networks")
            require(self.lstm_layers == self.lstm_context == 0, "lstm_layers and lstm_context belong to conv networks")
            require(self.depth > 0, f"depth must be positive, got {self.depth}")
            require(self.window_length > 0, f"window_length must be positive, got {self.window_length}")
            require(
                self.context_window_length == 0
                or (self.context_window_length > self.window_length and self.context_window_length % 2 == 0),
                f"context_window_length must be even and more than window_length, got {self.context_window_length}",
            )
            require(
                len(self.dilations) in (0, self.depth) and all(d >= 1 for d in self.dilations),
                f"dilations must be {self.depth} numbers, one for each block, of 1 or more, got {list(self.dilations)}",
            )


@dataclass(frozen=True, kw_only=True)
class QuantizerFields:
    """The residual quantizers, one per domain."""

    num_codebooks: int = 12
    """Per domain, shared ones included."""
    num_shared: int = 0
    """How many of the last ones all domains have in common."""
    codebook_size: int = 1024
    """Entries of a codebook."""
    codebook_dim: int = 8
    """Width of an entry."""
    projection: Literal["none", "soft", "hard"] = "none"
    """What quantizers are fed. `none`: the latent. `soft`: a linear map of it for each domain (DeCodec). `hard`: its
    projections on subspaces, one for each domain, that are orthogonal to each other (not in a paper)."""

    def __post_init__(self) -> None:
        require_range("quantizer.num_codebooks", self.num_codebooks, 1, MAX_CODEBOOKS)
        require_range("quantizer.codebook_size", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        require_positive("quantizer.codebook_dim", self.codebook_dim)
        require(
            0 <= self.num_shared <= self.num_codebooks,
            f"quantizer.num_shared must be between 0 and num_codebooks, got {self.num_shared}",
        )

    @property
    def taught_groups(self) -> tuple[int, ...]:
        """Layer groups of a domain whose first codebook is taught something, and so stands by itself."""
        starts = range(1, self.num_codebooks, GROUP_CODEBOOKS)
        return (1, *(min(GROUP_CODEBOOKS, self.num_codebooks - start) for start in starts))


TEACHER_WIDTHS = {"hama": 189, "hubert": 768}
"""Numbers that a teacher says of a frame."""

TEACHER_RATE = 16_000
"""Sample rate that these hear, in Hz."""


@dataclass(frozen=True, kw_only=True)
class SemanticFields:
    """What the first codebook of the domain `speech` is taught to hold: what is said, and not who says it.

    The teacher hears clean speech, the codec the mixture (DeCodec, arXiv:2509.09201; before it SpeechTokenizer,
    arXiv:2308.16692).
    """

    teacher: Literal["none", "hama", "hubert", "folder"] = "none"
    """`hama`: phonemes, of the network in the package of that name. `hubert`: layer 9 of HuBERT, as torchaudio has it.
    `folder`: an array for each file, made by any other network."""
    folder: str = ""
    """folder: where the arrays are, `[frames, width]`, `speech/a.npy` for the file `speech/a.wav` of the corpus; may be
    within that of the corpus."""
    width: int = 0
    """folder: numbers of a frame."""

    @property
    def target_width(self) -> int:
        """Numbers that the teacher says of a frame; 0 without one."""
        return TEACHER_WIDTHS.get(self.teacher, self.width)

    @property
    def says_probabilities(self) -> bool:
        """Whether these are probabilities, and not a vector."""
        return self.teacher == "hama"

    def __post_init__(self) -> None:
        if self.teacher == "folder":
            require(self.folder != "" and self.width > 0, "semantic: a folder as teacher needs folder and width")
        else:
            require(
                self.folder == "" and self.width == 0, 'semantic: folder and width are for teacher = "folder" alone'
            )


@dataclass(frozen=True, kw_only=True)
class DiscriminatorFields:
    """The networks that learn to tell decoded from real audio (DAC, arXiv:2306.06546); used in training only."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """One network per period, which sees the waveform folded to that many columns."""
    window_lengths: tuple[int, ...] = (2048, 1024, 512)
    """One network per window length in samples, which sees the complex spectrum."""
    band_edges: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    """Where the spectrum is split into bands with weights of their own, as shares of the highest frequency."""
    width: int = 32
    """Channels: of the spectral networks, and of the first layer of the period networks."""
    learning_rate: float = 1e-4
    """Peak learning rate; it follows the schedule of `training`."""
    betas: tuple[float, float] = (0.8, 0.99)
    """Adam's averages."""
    clip_norm: float = 10.0
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        require(len(self.periods) + len(self.window_lengths) > 0, "discriminator: needs periods or window_lengths")
        require(all(p >= 2 for p in self.periods), "discriminator.periods must be at least 2")
        require(
            all(w >= 64 and w % 4 == 0 for w in self.window_lengths), "discriminator.window_lengths: multiples of 4"
        )
        edges = (0.0, *self.band_edges, 1.0)
        require(
            all(a < b for a, b in itertools.pairwise(edges)),
            "discriminator.band_edges must rise within 0 and 1",
        )
        require_averages("discriminator.betas", self.betas)
        for name in ("width", "learning_rate", "clip_norm"):
            require_positive(f"discriminator.{name}", getattr(self, name))


LOSSES = (
    *("mel", "feature", "adversarial", "snr", "mask", "band_snr", "level"),
    *("codebook", "commitment", "activity", "orthogonality", "semantic"),
)
"""Terms of the objective that have a weight."""


@dataclass(frozen=True, kw_only=True)
class CodecTrainingFields(TrainingFields):
    """Optimizer, schedule, and the weights of a codec's losses."""

    mel_weight: float = 15.0
    """Weight of the multi-scale log-mel distance."""
    feature_weight: float = 2.0
    """Weight of the distance between the discriminators' features of decoded and real audio."""
    adversarial_weight: float = 1.0
    """Weight of deceiving the discriminators; without it and `feature_weight` there are none."""
    adversarial_start: int = 0
    """Step at which the discriminators join."""
    adversarial_warmup: int = 0
    """Steps in which they learn, from then on, before they count."""
    mel_scales_per_step: int = 7
    """How many of the seven mel scales a step draws; fewer are faster and right on average."""
    snr_weight: float = 0.0
    """Weight of the negative signal-to-noise ratio in dB (not in the paper)."""
    mask_weight: float = 0.0
    """Weight of the same ratio for the stems that ratio masks, made of the decoded ones, take out of the mixture (not
    in the paper)."""
    band_snr_weight: float = 0.0
    """Weight of the same ratio as `snr`, taken in each of 21 bands by itself and averaged, so that those without much
    energy count as much as the others (not in the paper)."""
    level_weight: float = 0.0
    """Weight of the distance in dB between levels of those bands (not in the paper)."""
    envelope_probability: float = 0.0
    """How often a step compares what is left after an envelope has been applied (not in the paper)."""
    codebook_weight: float = 1.0
    """Weight of the codebook loss."""
    commitment_weight: float = 0.25
    """Weight of the commitment loss."""
    activity_weight: float = 1.0
    """Weight of the activity head's cross entropy, where the model has the head."""
    orthogonality_weight: float = 0.0
    """Weight of the squared cosine between what the quantizers of two domains are fed, for `soft` projections."""
    semantic_weight: float = 0.0
    """Weight of the distance between the first codebook of speech and what a teacher says of the clean speech."""
    stem_probability: float = 1.0
    """How often the stems of a mixture are decoded by themselves and compared. With 0, only what is exchanged between
    mixtures tells domains apart (DeCodec)."""
    silence_probability: float = 0.0
    """How often the output of an absent domain is decoded and taught to be silent (not in the paper)."""
    swap_probability: float = 0.5
    """How often two neighbouring examples exchange some of their domains before their latents are added up."""
    quantizer_dropout: float = 0.0
    """How often a domain of an example is coded with a random number of codebooks."""
    codebook_renewal: bool = False
    """Whether codebooks start from data and their unused entries are put to work (not in the paper)."""
    codebook_rate: float = 1.0
    """Learning rate of codebook entries, in those of everything else. AdamW moves a number by the rate at most in a
    step, so that entries are slow to follow what they stand for (not in a paper)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("silence", "stem", "swap", "envelope"):
            require_range(f"training.{name}_probability", getattr(self, f"{name}_probability"), 0, 1)
        require_range("training.quantizer_dropout", self.quantizer_dropout, 0, 1)
        require_range("training.mel_scales_per_step", self.mel_scales_per_step, 1, 7)
        require(
            self.snr_weight > 0 or self.silence_probability == 0,
            "training.silence_probability needs training.snr_weight, which weighs what silent outputs lose",
        )
        require_positive("training.codebook_rate", self.codebook_rate)
        for name in ("adversarial_start", "adversarial_warmup"):
            require_not_negative(f"training.{name}", getattr(self, name))
        for name in LOSSES:
            require_not_negative(f"training.{name}_weight", getattr(self, f"{name}_weight"))

    @property
    def adversarial(self) -> bool:
        """Whether discriminators are trained along."""
        return self.adversarial_weight > 0 or self.feature_weight > 0
