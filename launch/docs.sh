#!/usr/bin/env bash
# Builds the pages of docs/ as a site, any warning an error: bash launch/docs.sh [FOLDER], site/ by default.
set -euo pipefail
folder=$(realpath -m "${1:-site}")
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "docs"
# The theme announces the plans of its authors unless told not to.
NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --site-dir "$folder"
