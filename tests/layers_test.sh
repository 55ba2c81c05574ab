#!/usr/bin/env bash
# layers_test.sh SOURCE_FOLDER
#
# Holds the layers of docs/architecture.md over the folders of src/: includes point downwards in the order of src/CMakeLists.txt,
# and some things are done in one place only.
set -euo pipefail
export LC_ALL=C

failed=0
complain() {
  echo "$*"
  failed=1
}

sources() { find "$1" -name '*.h' -o -name '*.cc' | sort; }  # of a folder

# "file:line:text" of the files on standard input whose code, without line comments, matches; prefix is the source folder.
grep_code() {  # PATTERN
  xargs -r grep -nHE "$1" | sed 's,//.*$,,' | grep -E ":[0-9]+:.*($1)" || true
}

check_includes() {  # SOURCE_FOLDER
  local -a order
  local -A place includes
  local folder file line target
  mapfile -t order < <(sed -n 's/^add_subdirectory(\([a-z_]*\))$/\1/p' "$1/CMakeLists.txt")
  for line in "${!order[@]}"; do place[${order[$line]}]=$line; done
  for folder in "$1"/*/; do
    folder=$(basename "$folder")
    [ -n "${place[$folder]:-}" ] || complain "src/$folder is not in the order of src/CMakeLists.txt"
  done
  for folder in "${order[@]}"; do
    while IFS=: read -r file line target; do
      [ "$target" = "$folder" ] && continue
      includes[$folder,$target]=1
      if [ -z "${place[$target]:-}" ]; then
        complain "$file:$line: includes $target/, which is no folder of src/"
      elif [ "${place[$target]}" -gt "${place[$folder]}" ]; then
        complain "$file:$line: $folder includes $target, which stands above it in src/CMakeLists.txt"
      fi
    done < <(sources "$1/$folder" | xargs -r grep -nHoE '^ *#include "[a-z_]+/' | sed -E 's,#include "([a-z_]+)/,\1,; s, ,,g')
  done
  local pair other
  for pair in "${!includes[@]}"; do
    folder=${pair%,*} other=${pair#*,}
    [[ $folder < $other && -n ${includes[$other,$folder]:-} ]] && complain "src/$folder and src/$other include each other"
  done
  for pair in scheduler,engine engine,scheduler kernels,comm comm,kernels; do
    [ -n "${includes[$pair]:-}" ] && complain "src/${pair%,*} includes src/${pair#*,}: only folders above both may use both"
  done
  return 0
}

# What only some folders, or files, may do.
check_only_in() {  # SOURCE_FOLDER PATTERN WHAT FOLDER...
  local root=$1 pattern=$2 what=$3 found
  shift 3
  found=$(sources "$root" | grep -vE "^$root/($(IFS='|'; echo "$*"))[/.]" | grep_code "$pattern")
  [ -z "$found" ] || complain "$what only in: $*"$'\n'"$found"
}

# The Buffers that a file, or the header beside it, declares: "one|two".
buffers_of() {  # FILE
  { cat "$1" "${1%.cc}.h" 2>/dev/null || true; } |
    sed -nE 's,//.*,,; s/^ *(mutable )?Buffer ([a-z_0-9, ]+)( =|;|\().*/\2/p' | tr -d ' ' | tr ',' '\n' | sort -u | paste -sd '|'
}

# A Buffer's memory may be an accelerator's: above kernels and comm its address is passed on, never followed. What a grep sees:
# elements, dereferences and copies through a Buffer's data().
check_buffers() {  # SOURCE_FOLDER
  local file names address found
  while read -r file; do
    names=$(buffers_of "$file")
    [ -n "$names" ] || continue
    address="\\b($names)\\.data\\(\\)"
    found=$(echo "$file" | grep_code "\\*[^;,=(]*$address|$address *\\)?\\[|$address\\)?->|mem(cpy|move|set)\\(.*$address")
    [ -z "$found" ] || complain "a Buffer's memory is followed on the host above kernels and comm:"$'\n'"$found"
  done < <(sources "$1" | grep -vE "^$1/(tensor|device|kernels|comm)/" | xargs -r grep -l '\.data()')
}

# The same of views, in the folders that compute with them: an element, a row's address or a copy through a view's address. The
# few places where the host does follow one say so in the line: "// host: why".
check_views() {  # SOURCE_FOLDER
  local file names found folder
  while read -r file; do
    names=$({ cat "$file" "${file%.cc}.h" 2>/dev/null || true; } | sed -E 's,//.*,,' |
      grep -oP 'View<[^;(){}]*> \K[a-z_]+(?![a-z_]|\((View|Compute|const|[A-Z)]|int))' | sort -u | paste -sd '|' || true)
    # Expressions through workspace_ too, whose views are declared elsewhere.
    names="workspace_\\.[a-z_]+${names:+|$names}"
    found=$(grep -nHP "\\.row\\(|(^|[^.:a-zA-Z_>])($names)\\((?!View|std::)|(copy_n|fill_n|memcpy|memmove|memset)\\(.*\\.data\\(\\)|\\*[^;,=(]*\\b($names)\\.data\\(\\)|\\b($names)\\.data\\(\\)\\)?\\[" "$file" |
      grep -vE '// host: |: *//|^[^:]*:[0-9]*: *: |View<[^;()]*> [a-zA-Z_:]+\(|: *[A-Z][A-Za-z]* [a-z_]+\([^()]*\) const;' || true)
    [ -z "$found" ] || complain "a view's memory is followed on the host above kernels and comm, and its line does not say // host: why"$'\n'"$found"
  done < <(for folder in model engine; do [ ! -d "$1/$folder" ] || sources "$1/$folder"; done | grep -vE '_test\.(cc|h)$')
}

check() {  # SOURCE_FOLDER
  failed=0
  check_includes "$1"
  check_only_in "$1" '\b(secure_)?getenv *\(|\benviron\b|\bargv\b' "environment and arguments are read" config cli \
    base/process comm/ucx  # what a child inherits; what UCX's own variables say about signals
  check_only_in "$1" '#include <boost/beast' "Boost.Beast is included" http
  check_only_in "$1" '#include <uc[mpst]/' "UCX is included" comm/ucx
  check_only_in "$1" '#include <raft' "Raft's core is included" agents/raft_core
  check_buffers "$1"
  check_views "$1"
  return $failed
}

# A check that cannot fail proves nothing: each rule is broken once in a small tree.
self_check() {
  local folder rule report
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' RETURN
  mkdir "$folder/src" && cd "$folder"
  for rule in base config kernels comm scheduler model engine http serve cli; do
    mkdir "src/$rule"
    echo "add_subdirectory($rule)" >> src/CMakeLists.txt
  done
  echo '#include "base/log.h"  // getenv("HOME") in a comment is none' > src/model/good.cc
  printf '%s\n' 'Buffer memory_;' 'x = View(memory_.data(), 3);' > src/model/buffers.h
  printf '%s\n' 'void f(View<float, 2> rows) {' '  g(View<float, 2>(rows.data(), 3, 2), rows.rows(0, 1));' '  x = rows(0, 1);  // host: once, at load' \
    > src/model/views.cc
  echo 'getenv("HOME"); argv[1];' > src/config/environment.cc
  echo '#include <boost/beast/core.hpp>' > src/http/server.cc
  report=$(check src) || { echo "the self-check failed: a sound tree is refused: $report"; return 1; }

  expect_complaint() {  # FILE TEXT COMPLAINT
    echo "$2" > "$1"
    if report=$(check src) || ! grep -qF "$3" <<< "$report"; then
      echo "the self-check failed: '$2' in $1 gives '$report', not '$3'"
      return 1
    fi
    rm "$1"
  }
  expect_complaint src/base/up.h '#include "model/moe.h"' 'src/base/up.h:1: base includes model, which stands above it' &&
    expect_complaint src/base/up.h '#include "model/moe.h"' 'src/base and src/model include each other' &&
    expect_complaint src/model/odd.h '#include "nowhere/x.h"' 'no folder of src/' &&
    expect_complaint src/engine/plan.cc '#include "scheduler/scheduler.h"' 'src/engine includes src/scheduler' &&
    expect_complaint src/comm/sum.cc '#include "kernels/ops.h"' 'src/comm includes src/kernels' &&
    expect_complaint src/engine/home.cc 'const char* home = getenv("HOME");' 'src/engine/home.cc:1:' &&
    expect_complaint src/serve/server.cc '#include <boost/beast/http.hpp>' 'Boost.Beast is included only in: http' &&
    expect_complaint src/comm/mesh.cc '#include <ucp/api/ucp.h>' 'UCX is included only in: comm/ucx' &&
    expect_complaint src/comm/log.cc '#include <raft.h>' "Raft's core is included only in: agents/raft_core" &&
    expect_complaint src/engine/first.cc $'Buffer cache = make();\nx = *cache.data();' 'src/engine/first.cc:2:' &&
    expect_complaint src/model/first.cc $'Buffer cache = make();\nreinterpret_cast<float*>(cache.data())[0] = 1;' 'src/model/first.cc:2:' &&
    expect_complaint src/model/first.cc $'Buffer cache, logits;\nmemcpy(x, logits.data(), 8);' 'src/model/first.cc:2:' &&
    expect_complaint src/model/first.cc $'void f(View<float, 2> rows) {\nx = rows(0, 1);' 'src/model/first.cc:2:' &&
    expect_complaint src/model/first.cc $'x = workspace_.ids(0);' 'src/model/first.cc:1:' &&
    expect_complaint src/engine/first.cc $'const View<const float, 2> all = f();\nx = *all.row(0);' 'src/engine/first.cc:2:' &&
    expect_complaint src/engine/first.cc $'const View<float, 2> all = f();\nstd::copy_n(all.data(), 3, x);' 'src/engine/first.cc:2:'
}

(self_check)
cd "$1"
check src
