# shellcheck shell=bash
# Functions that several scripts here share. To be sourced.

# `help_if_asked "$@"`: for --help prints the head of the script that calls, and ends it.
help_if_asked() {
  case ${1-} in
    --help | -h)
      sed --quiet '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[1]}"
      exit 0
      ;;
  esac
}

# `no_single_folder "$@"`: a script that makes several results can't take one folder for them.
no_single_folder() {
  if [[ " $* " == *' --out'[\ =]* ]]; then
    echo "${BASH_SOURCE[1]##*/}: --out is one folder, and these are several results: they go to results/, beside each other" >&2
    exit 2
  fi
}

# Results name the commit that they were measured at, if the current folder, the root, is a repository of its own.
name_commit() {
  local commit
  if [[ -e .git ]] && commit=$(git rev-parse --short=12 HEAD 2> /dev/null); then
    git diff-index --quiet HEAD -- 2> /dev/null || commit+=-dirty
    export ECHOMETER_COMMIT=$commit
  fi
}
