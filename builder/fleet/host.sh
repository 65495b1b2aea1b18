# What the desk has a host do. It comes over ssh's standard input, after a line for each variable that it reads, and needs
# a POSIX sh; what it has to say to the desk are lines of stdout that begin with @ and the word of this connection, so
# that no greeting of a login shell is taken for one.
# shellcheck shell=sh disable=SC2015,SC2154
set -u
LC_ALL=C PATH=$PATH:/usr/sbin:/usr/lib/wsl/lib:/opt/rocm/bin
export LC_ALL PATH

answer() { printf '@%s %s\n' "$_mark" "$*"; }

# lines NAME COMMAND: each line that a command prints, where there is such a command.
lines() {
  _name=$1
  shift
  command -v "$1" >/dev/null 2>&1 || return 0
  "$@" 2>/dev/null </dev/null | head -n 600 | cut -c 1-300 | sed "s/^/@$_mark out $_name /"
}

refuse() {
  printf 'drydock: error: %s\n' "$1" >&2
  exit 1
}

# As templates/_facts.sh.j2 has it.
find_store() {
  _drydock=${DRYDOCK_HOME:-${XDG_DATA_HOME:-${HOME:?there is no HOME}/.local/share}/drydock}
  case $_drydock in /*) ;; *) _drydock=$PWD/$_drydock ;; esac
  [ ! -f "$_drydock/format" ] || { read -r _format <"$_drydock/format"; [ "$_format" = 1 ]; } ||
    refuse "$_drydock is a store of another format: it is of a newer Drydock"
  _fleet=$_drydock/fleet
  # In a store of a group each member has a folder of their own (the rule is that of templates/run.sh.j2, grouped).
  if [ -g "$_drydock" ] && [ -n "$(find "$_drydock" -prune -perm -020)" ]; then
    _modes=002 _fleet=$_drydock/fleet/$(id -u)
  else
    _modes=022
  fi
}

# sha256 of its input.
digest() {
  if command -v sha256sum >/dev/null 2>&1; then sha256sum | cut -c 1-64
  elif command -v shasum >/dev/null 2>&1; then shasum -a 256 | cut -c 1-64
  elif command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 -r | cut -c 1-64
  else echo none; fi
}

is_usable() {
  [ -f "$1/.drydock/manifest.json" ] && [ -x "$1/bin/python" ]
}

# --- probe ---

probe() {
  answer uname "$(uname -s)" "$(uname -m)" "$(uname -r)"
  answer who "$(id -un)" "$(date +%s)"
  answer home "$HOME"
  find_store
  answer store "$_drydock"
  answer fleet "$_fleet"
  _place=$_drydock
  while [ ! -d "$_place" ]; do _place=${_place%/*}; [ -n "$_place" ] || _place=/; done
  lines df df -Pk "$_place"
  if [ "$(uname -s)" = Darwin ]; then
    lines sysctl sysctl hw machdep.cpu.brand_string iogpu.wired_limit_mb
    lines sw_vers sw_vers
  else
    lines glibc getconf GNU_LIBC_VERSION
    lines cpuinfo head -n 30 /proc/cpuinfo
    lines meminfo head -n 5 /proc/meminfo
    lines os cat /etc/os-release
    lines rocminfo rocminfo
  fi
  if command -v nvidia-smi >/dev/null 2>&1; then
    answer nvidia
    lines gpus nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
    lines capabilities nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    lines summary nvidia-smi
  fi
  generations
  known
  pythons
  answer end
}

# All generations, and of each that is current its environment.
generations() {
  for _link in "$_drydock"/profiles/*-link; do
    [ -L "$_link" ] || continue
    _target=$(readlink "$_link") _link=${_link##*/}
    answer had "${_link%-link}" "${_target##*/}"
  done
  for _link in "$_drydock"/profiles/*; do
    case $_link in *-link | *-run.sh) continue ;; esac
    [ -L "$_link" ] && _numbered=$(readlink "$_link") || continue
    case $_numbered in */* | '' | *[!a-z0-9.-]*) continue ;; esac
    _target=$(readlink "${_link%/*}/$_numbered") || continue
    answer now "${_link##*/}" "${_numbered%-link}" "${_target##*/}" \
      "$(digest <"${_link%/*}/${_numbered%-link}-run.sh" 2>/dev/null)"
    describe "$_drydock/store/${_target##*/}"
  done
}

# describe ENV: what an environment is, so that two can be compared: its Python, and what the RECORDs of its packages say.
describe() {
  is_usable "$1" || { answer gone "${1##*/}"; return 0; }
  answer python "${1##*/}" "$(sed -n 's/^ "interpreter-build": "\(.*\)",*$/\1/p' "$1/.drydock/manifest.json" | cut -c 1-200)"
  answer files "${1##*/}" "$(cat "$1"/lib/python*/site-packages/*.dist-info/RECORD | digest)"
}

# What need not come again: the wheels that are unpacked, by the beginning of what they are called, with a note that can
# be read (FORMAT of builder/embedded/wheels.py); uv.
known() {
  for _folder in "$_drydock"/wheels/*; do
    [ -d "$_folder" ] || continue
    answer wheels "${_folder##*/}" "$(cd "$_folder" && grep -l '^{"format":2,' ./*.json 2>/dev/null | cut -c 3-18 | tr '\n' ' ')"
  done
  for _one in "$_drydock"/tools/uv-*/bin/uv; do
    [ ! -x "$_one" ] || { _one=${_one%/bin/uv}; answer uv "${_one##*/uv-}"; }
  done
  for _one in "$_drydock"/pythons/*/manifest.json "$_drydock"/cache/built/*/*.source.zip; do
    [ ! -f "$_one" ] || { _one=${_one%/*}; answer archive "${_one##*/}"; }
  done
  for _one in "$_drydock"/data/files/*; do
    [ ! -f "$_one" ] || answer archive "${_one##*/}"
  done
  for _one in "$_fleet"/scripts/*; do
    [ ! -d "$_one" ] || answer script "${_one##*/}"
  done
}

# The series of Python that may be here.
pythons() {
  for _minor in 9 10 11 12 13 14; do
    ! python_of "3.$_minor" >/dev/null || answer pythons "3.$_minor"
  done
}

# python_of SERIES: what should be a Python of that series.
python_of() {
  for _one in "$_drydock"/store/*/bin/"python$1" "$(command -v "python$1")" "$HOME"/.local/share/uv/python/*/bin/"python$1"; do
    [ ! -x "$_one" ] || { printf '%s\n' "$_one"; return 0; }
  done
  case ${DRYDOCK_PYTHON-} in */"python$1") printf '%s\n' "$DRYDOCK_PYTHON" ;; *) return 1 ;; esac
}

# --- build ---

# Reads the files that this host lacks, and runs the script; what it makes of them is the script's business, which compares
# each with its hash. Where the desk goes away, so does the build.
build() {
  find_store
  make_new
  head -c "$_size" | tar -xf - || refuse "what came from the desk cannot be unpacked in $_fleet: is the disk full?"
  [ -f end ] || refuse "the connection broke while files came"
  answer step building
  keep_script
  if [ -f uv.gz ]; then
    _tool=$_drydock/tools/uv-$_uv
    mkdir -p "$_new/uv/bin" "$_drydock/tools" && gzip -dc uv.gz >uv/bin/uv && chmod 755 uv/bin/uv || refuse "uv cannot be unpacked"
    [ -x "$_tool/bin/uv" ] || mv uv "$_tool" 2>/dev/null || [ -x "$_tool/bin/uv" ] || refuse "$_tool cannot be made"
  fi
  if [ -f asked.json ]; then
    _found=$(python_of "$_series") && "$_found" -I -S -B -c "$_python" "$_drydock" >"$_new/out" || { answer refused; failed; }
  fi
  exec 3<&0
  # The folder is named from here, as its path may have a space in it.
  [ ! -d mirror ] || DRYDOCK_CACHE="mirror ${DRYDOCK_CACHE-}"
  export DRYDOCK_CACHE="${DRYDOCK_CACHE-}"
  [ -n "$DRYDOCK_CACHE" ] || unset DRYDOCK_CACHE
  if [ "$_verify" = yes ]; then
    watched sh "$_script" --build-only && watched sh "$_script" --verify || failed
  else
    watched sh "$_script" --build-only || failed
  fi
  describe "$_drydock/store/$_environment"
  answer built
}

# What is here now: a build deletes what it finds damaged, and the desk has not sent that.
failed() {
  known
  answer known
  exit 1
}

# A folder of this connection's own, in which it stands, and what is removed with it.
make_new() {
  _new=
  trap 'end_build' EXIT
  trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 141' PIPE; trap 'exit 143' TERM
  # Where the network was gone and the desk with it, only an answer to what is sent says so.
  # shellcheck disable=SC2217 # so that it does not hold the connection's
  while sleep 5 >/dev/null 2>&1 </dev/null && kill -0 $$; do answer alive; done 2>/dev/null &
  _alive=$!
  umask "$_modes"
  mkdir -p "$_fleet/scripts" || refuse "$_drydock cannot be written: set DRYDOCK_HOME for this user, where ssh sees it"
  [ -w "$_drydock" ] || refuse "$_drydock cannot be written by $(id -un): whose is it? DRYDOCK_HOME names another"
  # What was killed here left; a day is longer than any transfer takes.
  for _old in "$_fleet"/.new-*; do
    [ -d "$_old" ] && [ -n "$(find "$_old" -prune -mmin +1440)" ] && rm -rf "$_old"
  done
  _try=0
  while [ -z "$_new" ]; do
    _try=$((_try + 1))
    [ "$_try" -lt 20 ] || refuse "no folder can be made in $_fleet: is the disk full?"
    (umask 077 && mkdir "$_fleet/.new-$$-$_try") 2>/dev/null && _new=$_fleet/.new-$$-$_try
  done
  cd "$_new" || exit 1
}

# watched COMMAND: runs it, for as long as the desk holds the connection.
watched() {
  "$@" </dev/null 3<&- >"$_new/out" &
  _work=$!
  { while read -r _word <&3; do :; done; end_tree "$_work"; } 2>/dev/null &
  _watch=$!
  _status=0
  wait "$_work" || _status=$?
  # Another signal is lost where it comes right after the fork, and the wait would have no end.
  kill -s KILL "$_watch" 2>/dev/null
  wait "$_watch" 2>/dev/null
  sed 's/^/drydock:   /' "$_new/out" | head -n 60 >&2
  _work=
  return "$_status"
}

# end_tree PID: ends a process and all that it started. A shell cannot lead a group of its own without a terminal.
end_tree() {
  _tree=$(tree_of "$1")
  # shellcheck disable=SC2086 # numbers
  kill $_tree
  for _pause in 1 2 3 4 5; do
    kill -0 "$1" || break
    sleep 1
  done
  # shellcheck disable=SC2086 # numbers
  kill -s KILL $_tree
}

tree_of() {
  { ps -A -o pid= -o ppid= || ps -o pid,ppid || cat /proc/[0-9]*/stat | awk '{ print $1, $4 }'; } 2>/dev/null | awk -v top="$1" '
    { above[$1] = $2 }
    END {
      for (one in above) {
        steps = 0
        for (up = one; up != top && (up in above) && steps++ < 99;) up = above[up]
        if (up == top) print one
      }
    }'
}

# The script under its sha256, and a root, so that what it builds is not collected before it has a generation.
keep_script() {
  _folder=$_fleet/scripts/$_sha256 _script=$_fleet/scripts/$_sha256/$_file
  if [ -f script.gz ]; then
    mkdir script && gzip -dc script.gz >"script/$_file" && chmod 755 "script/$_file" || refuse "the script cannot be unpacked: is the disk full?"
    _found=$(digest <"script/$_file")
    [ "$_found" = "$_sha256" ] || [ "$_found" = none ] || refuse "the script came damaged: its sha256 is $_found"
    mv script "$_folder" 2>/dev/null || [ -f "$_script" ] || refuse "$_folder cannot be made"
  fi
  [ -f "$_script" ] || refuse "$_script is gone: deploy again"
  { read -r _here </proc/sys/kernel/hostname; } 2>/dev/null || _here=$(uname -n)
  _here=${_here%%.*}
  case $_here in '' | *[!A-Za-z0-9_-]*) _here=unknown ;; esac
  mkdir -p "$_drydock/gcroots/scripts" && printf '%s\n' "$_script" >>"$_drydock/gcroots/scripts/$_environment.$_here"
}

end_build() {
  [ -z "${_work-}" ] || end_tree "$_work" 2>/dev/null
  kill "${_alive-}" 2>/dev/null
  cd / && [ -z "$_new" ] || rm -rf "$_new"
}

# --- switch ---

# Makes an environment the current one of its profile, as builder/store/generations.py does, by its own Python.
switch() {
  find_store
  is_usable "$_drydock/store/$_environment" || refuse "$_environment is not built"
  umask "$_modes"
  "$_drydock/store/$_environment/bin/python" -I -S -c "$_python" "$_drydock" "$_stem" "$_was" "$_number" "$_environment" \
    "$_fleet/scripts/$_sha256/$_file" || exit 1
  # The generation has a copy, and is the root now.
  rm -rf "${_fleet:?}/scripts/${_sha256:?}"
  answer switched
}

# --- collect ---

# Deletes what nothing needs, by the rooms of Drydock that know the store.
collect() {
  find_store
  is_usable "$_drydock/store/$_environment" || refuse "$_environment is not built"
  make_new
  head -c "$_size" | tar -xf - && [ -f end ] || refuse "what came from the desk cannot be unpacked in $_fleet"
  # What was built and never switched to.
  for _old in "$_fleet"/scripts/*; do
    [ -d "$_old" ] && [ -n "$(find "$_old" -prune -mmin +1440)" ] && rm -rf "$_old"
  done
  "$_drydock/store/$_environment/bin/python" -I -S -B -c "$_python" "$_mark" || exit 1
}

# --- launch ---

# Becomes what looks after a trainer, in the environment that is to run it.
launch() {
  find_store
  is_usable "$_drydock/store/$_environment" || refuse "$_environment is not built: drydock deploy"
  exec "$_drydock/store/$_environment/bin/python" -I -S -c "$_python" "$_mark"
}

# --- service ---

# Installs, removes or looks at the service of a profile, by the Python of its environment, or of any that is here.
service() {
  find_store
  for _environment in "$_drydock/profiles/$_stem" "$_drydock"/store/*; do
    is_usable "$_environment" && exec "$_environment/bin/python" -I -S -c "$_python" "$_mark" "$_drydock" "$_fleet"
  done
  refuse "no environment is built here: drydock deploy"
}
