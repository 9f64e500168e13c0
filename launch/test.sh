#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs ncjax with its development tools into .venv and runs every check. Arguments go to pytest.

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
if (($#)); then
    python -m pytest "$@"
else
    python -m pytest --cov --cov-report=term -n auto --maxprocesses 4 --dist loadfile
fi
