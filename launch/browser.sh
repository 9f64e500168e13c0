#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Opens pages of the report in a headless Chromium and asks an accessibility checker; what cannot be had is skipped, and the
# reason is printed. Arguments go to pytest.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

setup dev
cd -- "$ROOT"
export PATH=$VENV/bin:$PATH
if [[ ! -f ${AXE:-build/node_modules/axe-core/axe.min.js} ]] && command -v npm >/dev/null; then
    npm install --silent --no-fund --no-audit --prefix build axe-core@4 || echo "axe-core was not installed" >&2
fi
python -m pytest -m browser -rs "$@"
