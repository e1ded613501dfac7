"""What every family has to say of every recipe in the zoo."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli import families
from sdcodec_cli.recipe import make_recipe
from sdcodec_cli.zoo import list_models

RECIPES = [entry.recipe for entry in list_models()]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_stages_may_name_just_the_parts_that_the_network_has(recipe):
    with torch.device("meta"):  # sizes alone
        network = families.build(recipe)
    parts = [
        f"{name}.{number}" if isinstance(child, torch.nn.ModuleList) else name
        for name, child in network.named_children()
        for number in (range(len(child)) if isinstance(child, torch.nn.ModuleList) else [0])
    ]
    others = [prefix.removesuffix(".") for prefix in families.of(recipe).references(recipe)]
    assert recipe.parts == tuple(part for part in parts if part not in others)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_domain_has_streams_or_there_are_no_codes_at_all(recipe):
    streams = families.of(recipe).streams(recipe)
    assert {stream.stem for stream in streams} == (set() if recipe.family == "tdanet" else set(recipe.model.domains))


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_recipe_that_only_names_its_family_is_complete(name):
    recipe = make_recipe({"name": "x", "family": name}, where="mine.toml")
    assert isinstance(recipe, families.find(name).recipe)
    assert recipe.family == name


def test_a_graph_has_the_parts_that_the_family_names(small_recipes):
    for recipe in small_recipes:
        family, network = families.of(recipe), families.build(recipe).eval()
        assert tuple(family.modules(network, recipe)) == tuple(family.graph_parts(network, recipe)) == family.parts
        assert tuple(family.measured(network, recipe)) == family.sizes


@pytest.fixture
def small_recipes():
    from tiny_models import tiny_bands, tiny_decodec, tiny_recipe, tiny_separator

    return [tiny_recipe(), tiny_separator(), tiny_bands(), tiny_decodec()]
