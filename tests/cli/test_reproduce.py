# SPDX-License-Identifier: Apache-2.0
"""`ncjax reproduce` on the command line: the list, the page, and what is refused."""

import sys

import pytest

from ncjax.cli import main as cli
from ncjax.reproduce import all_experiments


def ncjax(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ncjax", "reproduce", *map(str, arguments)])
    cli.main()


def test_without_a_name_it_lists_experiments_and_their_cost(monkeypatch, tmp_path, capsys):
    ncjax(monkeypatch, "--workdir", tmp_path)
    out = capsys.readouterr().out
    assert all(name in out for name in all_experiments())
    assert "one GPU" in out
    assert "12 x 4.3 min" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "message"), [
    (["coarse"], "unknown experiment 'coarse'; known: coarse_cifar10"),
    (["digits", "--minutes", "0"], "minutes is 0, but must be above 0; change it with --minutes"),
    (["digits", "--scale", "tpu"], "--scale is 'tpu', but must be one of try, cores, gpu, slice"),
    (["digits", "--page", "x.md.j2"], "--page runs no experiment; leave the names out"),
    (["--page", "missing.md.j2"], "no template of a page at missing.md.j2"),
    (["digits", "--scale", "gpu"], "digits is not defined for --scale gpu, but for try, cores"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(monkeypatch, tmp_path, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        ncjax(monkeypatch, *arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"ncjax: error: {message}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_page_is_written_beside_its_template(monkeypatch, tmp_path, capsys):
    (tmp_path / "page.md.j2").write_text("{{ 1 + 1 }}\n")
    ncjax(monkeypatch, "--page", tmp_path / "page.md.j2")
    assert (tmp_path / "page.md").read_text() == "2\n"
    assert "page: " in capsys.readouterr().out
