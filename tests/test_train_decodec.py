"""Speech and background in subspaces of their own: what is lost, a run with a teacher, and weights to start from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sdcodec_cli import load_codec
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.data.pool import Pool
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.train.batches import level, make_batch
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.engine.train.export import export
from sdcodec_cli.engine.train.loop import train
from sdcodec_cli.engine.train.trainer import Trainer
from sdcodec_cli.errors import ModelError
from sdcodec_cli.families import build, of
from sdcodec_cli.families.decodec import DeCodecRecipe
from sdcodec_cli.nn.objectives.terms import teaching
from sdcodec_cli.nn.projection import HardProjection, overlap
from sdcodec_cli.nn.sdcodec import SDCodec
from sdcodec_cli.runtime.torch import load_network
from sdcodec_cli.zoo import find, write_model

from tiny_models import noise_clips, tiny_decodec, tiny_recipe, write_tiny
from training_examples import QUICK, losses, rows

pytestmark = pytest.mark.usefixtures("without_graphs", "small_validation")


@pytest.fixture(scope="module")
def pool() -> Pool:
    domains = ("speech", "music", "sfx")
    return Pool(16_000, {name: noise_clips(seconds=8, count=2, seed=n) for n, name in enumerate(domains)})


def trainer_of(recipe: DeCodecRecipe, **options) -> Trainer:
    return Trainer(recipe, Processes("cpu", recipe.training), **options)


def test_background_is_the_sum_of_all_that_is_not_speech(pool):
    recipe = tiny_decodec()
    batch = make_batch(pool, recipe, range(8))
    stems, separate = (
        level(batch, each)
        for each in (recipe, dataclasses.replace(tiny_recipe(), mixing=recipe.mixing, training=recipe.training))
    )
    assert (stems.shape[1], separate.shape[1]) == (2, 3)
    torch.testing.assert_close(stems[:, 0], separate[:, 0])
    torch.testing.assert_close(stems[:, 1], separate[:, 1:].sum(1))
    assert batch.choices.active.tolist() == [[bool(a), bool(b | c)] for a, b, c in batch.active.tolist()]


def test_a_teacher_counts_where_somebody_speaks_and_it_says_something():
    guide = torch.tensor([[[1.0, 0], [1, 0], [0, 0], [0, 1]]])
    told = torch.tensor([[[2.0, 0], [0, 3], [1, 1], [0, -1]]])
    active = torch.tensor([[True, True, True, False]])
    expected = -(torch.tensor([1.0, 0.0]).sigmoid().log().mean())
    torch.testing.assert_close(teaching(told, guide, active, probabilities=False), expected[None])
    nobody = torch.zeros(1, 4, dtype=torch.bool)
    assert teaching(told, guide, nobody, probabilities=False).tolist() == [0]


def test_probabilities_of_a_teacher_are_what_the_head_should_tell():
    guide = torch.tensor([[[0.5, 0.5], [1, 0], [0.25, 0.75], [0, 0]]])
    active = torch.tensor([[True, True, False, True]])
    exactly, nothing = guide.clamp_min(1e-9).log() + 3, torch.zeros(1, 4, 2)
    torch.testing.assert_close(teaching(exactly, guide, active, probabilities=True), torch.zeros(1), atol=1e-6, rtol=0)
    # Two phonemes are as likely as each other: right of the first frame, a bit short of the second.
    torch.testing.assert_close(teaching(nothing, guide, active, probabilities=True), torch.tensor([2.0]).log() / 2)


def test_soft_projections_are_pulled_apart_and_hard_ones_stay_orthogonal(pool):
    overlaps = []
    for kind in ("soft", "hard"):
        recipe = tiny_decodec(kind)
        weight = 30.0 if kind == "soft" else 0.0
        fields = dataclasses.replace(recipe.training, orthogonality_weight=weight, learning_rate=0.01)
        trainer = trainer_of(dataclasses.replace(recipe, training=fields))
        for step in range(6):
            trainer.backward([make_batch(pool, recipe, range(2 * step, 2 * step + 2))])
            trainer.take_step()
        with torch.no_grad():
            latent = trainer.model.encode(torch.randn(1, 1, 3200) * 0.1)
            overlaps.append(float(overlap(trainer.model.project(latent))))
    assert overlaps[0] < 0.5  # from about 0.9
    assert overlaps[1] < 1e-9


def test_a_run_with_a_teacher_becomes_a_codec_whose_speech_has_its_first_codebook_apart(corpus, tmp_path):
    said = corpus / "said/train/speech"
    said.mkdir(parents=True, exist_ok=True)
    np.save(said / "a.npy", np.random.default_rng(0).standard_normal((50, 4)))
    recipe = tiny_decodec(teacher=True)
    train(recipe, data_root=corpus, run=tmp_path / "run", options=dataclasses.replace(QUICK, validate_every=6))
    kinds = losses(tmp_path / "run")[-1].keys()
    assert {"semantic", "mel", "activity"} <= kinds
    assert "orthogonality" not in kinds
    names = ("mix", "speech", "speech separated", "background", "background separated", "mean")
    assert tuple(rows(tmp_path / "run", "validation")[-1]["validation"]) == names
    folder = export(tmp_path / "run", tmp_path / "model", bits=16).folder
    network = load_network(find(folder))
    assert isinstance(network, SDCodec)
    assert isinstance(network.projection, HardProjection)
    codec = load_codec(folder, device="cpu")
    codes = codec.encode(0.1 * np.random.default_rng(1).standard_normal(8000).astype(np.float32))
    assert {name: found.shape for name, found in codes.codes.items()} == dict.fromkeys(
        ("speech", "background"), (1, 6, 25)
    )
    for count, groups in ((None, (1, 4, 1)), (3, (1, 2))):
        result = compress(
            corpus / "valid/speech/a.wav",
            tmp_path / "a.sdc",
            codec=codec,
            num_codebooks=count,
            envelope=False,
            overwrite=True,
        )
        with open(result.output, "rb") as file:
            entries = {entry.name: entry.groups for entry in Reader(file, "a").header.domains}
        assert entries["speech"] == groups
        assert sum(entries["background"]) == sum(groups)


def test_codes_without_their_first_codebook_are_decoded(tmp_path):
    codec = load_codec(write_tiny(tmp_path / "m", tiny_decodec(), seed=1), runtime="torch", device="cpu")
    codes = codec.encode(0.1 * np.random.default_rng(1).standard_normal(8000).astype(np.float32))
    whole = codec.decode(codes, stem="speech")
    for left_out in (slice(0, 1), slice(1, None)):
        part = dataclasses.replace(codes, codes={name: found.copy() for name, found in codes.codes.items()})
        part.codes["speech"][:, left_out] = -1
        decoded = codec.decode(part, stem="speech")
        assert decoded.any()
        assert not np.allclose(decoded, whole, atol=1e-4)


def test_it_starts_from_an_sd_codec_of_three_domains_and_more_codebooks_and_blocks(tmp_path):
    given = tiny_recipe()
    assert given.family == "sdcodec"
    given = dataclasses.replace(
        given,
        encoder=dataclasses.replace(given.encoder, depth=4),
        quantizer=dataclasses.replace(given.quantizer, num_codebooks=8, num_shared=0),
    )
    entry = find(write_tiny(tmp_path / "given", given, seed=3))
    recipe = tiny_decodec()
    network, stored = trainer_of(recipe, initial=entry).model, load_network(entry).state_dict()
    own = network.quantizer.own.codebook
    assert torch.equal(own[0], stored["quantizer.own.codebook"][0, :6])
    assert torch.equal(own[1], stored["quantizer.own.codebook"][2, :6])  # background starts as sfx
    assert torch.equal(network.encoder.blocks[1].expand.weight, stored["encoder.blocks.2.expand.weight"])
    assert torch.equal(network.activity.project.weight, stored["activity.project.weight"][[0, 2]])
    assert torch.equal(network.decoder.embed.weight, stored["decoder.embed.weight"])


def test_the_head_of_another_teacher_or_version_is_not_needed_and_begins_anew(tmp_path):
    recipe = tiny_decodec(teacher=True)
    torch.manual_seed(3)
    stored = build(recipe).state_dict()
    before = {name: value for name, value in stored.items() if not name.startswith("semantic.")}
    write_model(tmp_path / "older", recipe, {**before, "semantic.weight": torch.ones(7, 16)}, card="# older\n")
    entry = find(tmp_path / "older")
    loaded = load_network(entry).state_dict()
    started = trainer_of(recipe, initial=entry).model.state_dict()
    assert all(torch.equal(loaded[name], before[name]) for name in before)
    assert loaded.keys() == stored.keys()
    assert torch.equal(started["quantizer.own.codebook"], before["quantizer.own.codebook"])
    heads = [name for name in stored if name.startswith("semantic.")]
    assert [started[name].shape for name in heads] == [stored[name].shape for name in heads]
    again = find(write_tiny(tmp_path / "same", recipe, seed=3))
    started = trainer_of(recipe, initial=again).model.state_dict()
    assert all(torch.equal(started[name], stored[name]) for name in heads)


def test_streams_tell_their_groups_where_something_is_taught():
    for teacher, groups in ((False, ()), (True, (1, 4, 1))):
        recipe = tiny_decodec(teacher=teacher)
        assert [stream.groups for stream in of(recipe).streams(recipe)] == [groups, ()]
        assert [name for name, _ in build(recipe).named_children()] == list(recipe.parts)


def test_an_lstm_is_trained_with_the_convolutions_and_begins_anew_where_other_weights_have_none(pool, tmp_path):
    def of_kind(kind: str) -> DeCodecRecipe:
        tiny, recipe = tiny_recipe(kind, activity=False), tiny_decodec()
        model = dataclasses.replace(recipe.model, activity=False)
        return dataclasses.replace(recipe, model=model, encoder=tiny.encoder, decoder=tiny.decoder)

    entry = find(write_tiny(tmp_path / "given", of_kind("conv"), seed=3))
    trainer = trainer_of(of_kind("lstm"), initial=entry)
    stored = load_network(entry).state_dict()
    lstms = [trainer.model.encoder.lstm, trainer.model.decoder.lstm]
    assert torch.equal(trainer.model.encoder.conv_in.bias, stored["encoder.conv_in.bias"])
    before = [parameter.detach().clone() for lstm in lstms for parameter in lstm.parameters()]
    trained = trainer.backward([make_batch(pool, trainer.recipe, range(2))])
    trainer.take_step()
    assert np.isfinite(float(trained["total"]))
    after = [parameter for lstm in lstms for parameter in lstm.parameters()]
    assert len(before) == 2 * 2 * 2 * 3  # of both, two layers in two directions
    assert not any(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    entry = find(write_tiny(tmp_path / "other", of_kind("lstm"), seed=3))
    with pytest.raises(ModelError, match=r"cannot be a start for this recipe, (en|de)coder\.lstm\..*another --init"):
        trainer_of(of_kind("conv"), initial=entry)
