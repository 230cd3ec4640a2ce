"""What is ignored in a foreign file is told for each layout by itself."""

import re

import pytest

from jaxprot.weights import registry

MODULE = "jaxprot.proteinmpnn.weights"
LABELS = "features.node_embedding.weight"


def _ignores(table, name):
    return any(re.fullmatch(pattern, name) for pattern in registry.table(table)[1])


def test_a_table_has_its_own():
    assert _ignores(f"{MODULE}:CA_ONLY", LABELS)
    assert not _ignores(f"{MODULE}:OFFICIAL", LABELS)
    assert not _ignores(f"{MODULE}:MEMBRANE", LABELS)
    assert _ignores("jaxprot.cryostar.weights:OFFICIAL_DENSITY", "coords_3d")
    assert not _ignores("jaxprot.cryostar.weights:OFFICIAL", "coords_3d")
    table = "esm.embeddings.position_embeddings.weight"
    assert _ignores("jaxprot.esm2.weights:HUGGING_FACE", table) and not _ignores("jaxprot.esm2.weights:OFFICIAL", table)
    attention = "model.light_attention.attention_convolution.weight"
    assert _ignores("jaxprot.thermompnn.weights:ADDITIVE", attention)
    assert not _ignores("jaxprot.thermompnn.weights:EPISTATIC", attention)


@pytest.mark.parametrize("table", registry.layouts())
def test_nothing_is_both_read_and_ignored(table):
    rules, ignored = registry.table(table)
    names = {re.sub(r"\((?:\?:)?([^()|]*)[^()]*\)\??", r"\1", rule.pattern).replace("\\.", ".") for rule in rules}
    names = {name.replace("\\d+", "0").replace("\\d", "0") for name in names}
    assert not [name for name in names for pattern in ignored if re.fullmatch(pattern, name)]
