#!/usr/bin/env bash
# How large the house is: for each folder of src/, the files and lines of the program and of its unit tests; then the tests
# over several folders.
#   scripts/size.sh            the table
#   scripts/size.sh --check    says what is over the budget, and fails (a test of ./test.sh). Who needs more raises the
#                              numbers below in the commit that needs them, and says in CHANGELOG.md what came for it.
set -euo pipefail
cd "$(dirname "$0")/.."
max_files=475
max_lines=73500

files() { find "$@" -type f \( -name '*.cc' -o -name '*.h' -o -name '*.rs' \) -not -path '*/target/*' | sort; }
is_test='_test(_util)?\.(cc|h)$'
program() { files "$@" | grep -vE "$is_test" || true; }
unit_tests() { files "$@" | grep -E "$is_test" || true; }
lines() { xargs -r cat | wc -l; }
count() { grep -c . || true; }

num_files=$(program src | count)
num_lines=$(program src | lines)
if [ "${1:-}" = --check ]; then
  echo "src without tests: $num_files files of $max_files, $num_lines lines of $max_lines"
  [ "$num_files" -le "$max_files" ] && [ "$num_lines" -le "$max_lines" ] && exit 0
  echo "The house has outgrown its budget: make it smaller, or raise the budget in scripts/size.sh on purpose."
  exit 1
fi

printf '%-22s %6s %7s %12s\n' folder files lines 'unit tests'
for folder in src/*/; do
  printf '%-22s %6d %7d %12d\n' "${folder%/}" "$(program "$folder" | count)" "$(program "$folder" | lines)" \
    "$(unit_tests "$folder" | lines)"
done
printf '%-22s %6d %7d %12d\n' 'src, all' "$num_files" "$num_lines" "$(unit_tests src | lines)"
for folder in tests bench; do
  printf '%-22s %6d %7d\n' "$folder" "$(files "$folder" | count)" "$(files "$folder" | lines)"
done
program src | xargs wc -l | awk '$2 != "total" {print $1}' | sort -n |
  awk '{n[NR] = $1} END {printf "median file %d lines, %d under 40, %d over 400\n", n[int((NR + 1) / 2)], under(), over()}
    function under(i, c) {for (i in n) c += n[i] < 40; return c}
    function over(i, c) {for (i in n) c += n[i] > 400; return c}'
