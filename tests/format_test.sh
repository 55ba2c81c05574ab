#!/usr/bin/env bash
# format_test.sh SOURCE_FOLDER VENV
#
# clang-format 19 changes no file. It is Debian's clang-format-19, or the same version from PyPI in VENV (made once);
# skipped where neither can be had.
set -euo pipefail
version=19.1.7
formatter=$(command -v clang-format-19 || true)
if [ -z "$formatter" ]; then
  formatter=$2/bin/clang-format
  if ! [ -x "$formatter" ]; then
    python3 -m venv "$2" && "$2/bin/pip" install --quiet --retries 1 --timeout 15 "clang-format==$version" || {
      rm -rf "$2"
      echo "no clang-format $version here and none from PyPI: skipped"
      exit 77
    }
  fi
fi

cd "$1"
mapfile -t files < <(find src tests bench \( -name '*.cc' -o -name '*.h' \) -not -path '*/rust/target/*' | sort)
printf 'int  x;\n' | "$formatter" --dry-run --Werror --assume-filename=x.cc 2>/dev/null && {
  echo "the self-check failed: 'int  x;' passes"
  exit 1
}
"$formatter" --dry-run --Werror "${files[@]}" || {
  echo "Format with: $(basename "$formatter") -i FILE (clang-format $version)"
  exit 1
}
echo "${#files[@]} files"
