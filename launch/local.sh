#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh machine to a report: installs ncjax into .venv and runs the demo. Arguments go to `ncjax demo`.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

setup ""
cd -- "$ROOT"
"$VENV/bin/ncjax" demo "$@"
