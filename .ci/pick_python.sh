#!/bin/sh
# Prints the Python to build an environment with: `pick_python.sh [NAME-OR-PATH...]`.
#
# A name on PATH proves nothing: version managers leave shims that fail, and Debian packages Python
# without ensurepip. So each candidate is run (python_speed.py), and the fastest one that can do the
# job is taken, because builds of the same version differ by half: a version manager compiles
# without profile-guided optimisation, a distribution with it, and the gateway is that much slower
# or faster. A later candidate must be a tenth faster, so that chance does not decide.
set -u
here=$(dirname "$0")
[ $# -gt 0 ] || set -- python3.13 python3.12 python3.11 python3

best=
best_ms=0
tried=:
consider() {
  real=$(readlink -f "$1" 2>/dev/null || echo "$1")
  case $tried in *:"$real":*) return ;; esac
  tried=$tried$real:
  ms=$("$1" "$here/python_speed.py" 2>/dev/null) || return
  case $ms in '' | *[!0-9]*) return ;; esac
  if [ -z "$best" ] || [ $((ms * 10)) -lt $((best_ms * 9)) ]; then
    best=$1
    best_ms=$ms
  fi
}

for name in "$@"; do
  case $name in
    */*) consider "$name" ;;
    *)
      set -f
      old_ifs=$IFS
      IFS=:
      for directory in $PATH; do
        if [ -x "$directory/$name" ]; then consider "$directory/$name"; fi
      done
      IFS=$old_ifs
      set +f
      ;;
  esac
done

if [ -z "$best" ]; then
  echo "No usable Python found. Lockgate needs Python 3.11 or later with venv and ensurepip" >&2
  echo "(on Debian: apt install python3-venv). To name one: make PYTHON=/path/to/python3" >&2
  exit 1
fi
echo "$best"
