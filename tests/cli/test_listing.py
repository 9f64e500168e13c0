# SPDX-License-Identifier: Apache-2.0
"""`ncjax list`: every name of every table, with a line that is not empty and does not fit by chance."""

import pytest

from ncjax.cli.configs import shipped_configs
from ncjax.cli.listing import kinds, list_verb
from ncjax.data import SOURCES
from ncjax.data.label_maps import LABEL_MAPS
from ncjax.errors import UserError
from ncjax.evaluation.views import VIEWS
from ncjax.models import NETWORKS

TABLES = {"sources": SOURCES, "networks": NETWORKS, "label-maps": LABEL_MAPS, "views": VIEWS}


@pytest.mark.parametrize("kind", TABLES)
def test_every_name_of_a_table_has_a_line_of_its_own(kind):
    entries = kinds()[kind].entries
    assert list(entries)[: len(TABLES[kind])] == list(TABLES[kind])
    assert all(entries.values())
    assert len(set(entries.values())) == len(entries)


def test_every_shipped_config_has_the_first_line_of_its_docstring():
    entries = kinds()["experiments"].entries
    assert list(entries) == list(shipped_configs())
    assert entries["coarse_cifar10"].startswith("The main experiment: ResNet-18 on CIFAR-10")


def test_all_kinds_or_one_are_printed(capsys):
    list_verb([])
    printed = capsys.readouterr().out
    assert all(f"{kind} (" in printed for kind in kinds())
    assert "  mod:C " in printed
    list_verb(["networks"])
    alone = capsys.readouterr().out
    assert alone.startswith("networks (--model.name NAME):\n  resnet18 ")
    assert alone in printed + "\n"
    assert "sources" not in alone


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match=r"no kind 'network' \(did you mean networks\?\); known: experiments, sources"):
        list_verb(["network"])
