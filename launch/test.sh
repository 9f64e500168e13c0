#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs ncjax with its development tools into .venv and runs every check. `--slow` runs the tests that are marked slow
# instead of the others; other arguments go to pytest.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

setup dev
cd -- "$ROOT"
export PATH=$VENV/bin:$PATH
ruff check .
ruff format --check .
mypy
lint-imports
shellcheck launch/*.sh .ci/run
at_once=(-n auto --maxprocesses 4 --dist loadfile)
if [[ ${1:-} == --slow ]]; then
    python -m pytest -m slow "${at_once[@]}" "${@:2}"
elif (($#)); then
    python -m pytest "$@"
else
    python -m pytest "${at_once[@]}"
fi
