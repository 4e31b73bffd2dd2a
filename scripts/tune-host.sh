#!/usr/bin/env bash
# Makes this machine fitter to measure latency on, and can undo it. Without a flag it only shows what it would change.
#
#     scripts/tune-host.sh                     shows each setting: what it is, what it would be, and why
#     sudo scripts/tune-host.sh --apply        records what is there, then changes it
#     sudo scripts/tune-host.sh --restore      puts back what was there
#
#     --state FILE    where the record is kept [default: /run/echometer-tune-host.saved]
#     --root DIR      works below DIR instead of / (for tests)
#
# Nothing lasts beyond a reboot. `echometer doctor` says what else is in the way, and what only a boot parameter or
# other hardware can change. Meanwhile the machine gets hotter and uses more power.
set -o errexit -o nounset -o pipefail

action=show
root=
state=/run/echometer-tune-host.saved

main() {
  while (($# > 0)); do
    case $1 in
      --apply | --restore) action=${1#--} ;;
      --state | --root)
        (($# > 1)) || usage "$1 needs a value"
        declare -g "${1#--}=$2"
        shift
        ;;
      --help | -h)
        sed --quiet '2,14s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
      *) usage "there is no flag '$1'" ;;
    esac
    shift
  done
  "$action"
}

# path | wanted | why, one setting per line. A setting whose file is absent is none of this machine's.
settings() {
  local file
  for file in "$root"/sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do
    setting "$file" performance 'no slow clock after a pause'
  done
  setting "$root/sys/devices/system/cpu/cpufreq/boost" 0 'a clock that does not depend on heat'
  setting "$root/sys/devices/system/cpu/intel_pstate/no_turbo" 1 'a clock that does not depend on heat'
  for file in "$root"/sys/devices/system/cpu/cpu[0-9]*/cpuidle/state[0-9]*/latency; do
    # Waking takes longer than 2 us: seen in the median of an echo.
    if [[ -r $file ]] && (($(< "$file") > 2)); then
      setting "${file%/latency}/disable" 1 'no waking from a deep sleep'
    fi
  done
  setting "$root/sys/kernel/mm/transparent_hugepage/enabled" madvise 'no stalls to make huge pages'
  setting "$root/proc/sys/kernel/io_uring_disabled" 0 'io_uring for everybody'
  setting "$root/proc/sys/kernel/numa_balancing" 0 'no faults to find out who uses which page'
  setting "$root/proc/sys/kernel/nmi_watchdog" 0 'no interrupts to see whether a cpu hangs'
  setting "$root/proc/sys/net/core/busy_poll" 0 'no spinning in the kernel'
  setting "$root/proc/sys/net/core/busy_read" 0 'no spinning in the kernel'
  at_least "$root/proc/sys/net/core/somaxconn" 4096 'room for a burst of connections'
  at_least "$root/proc/sys/net/ipv4/tcp_max_syn_backlog" 4096 'room for a burst of connections'
  if [[ -r $root/proc/sys/net/ipv4/tcp_congestion_control ]] \
    && [[ $(< "$root/proc/sys/net/ipv4/tcp_congestion_control") == bbr* ]]; then
    setting "$root/proc/sys/net/ipv4/tcp_congestion_control" cubic 'no sends held back by timers'
  fi
  for file in "$root"/sys/class/net/*/queues/rx-*/rps_cpus; do
    setting "$file" 0 'no work handed to another cpu'
  done
}

setting() {
  if [[ -e $1 ]]; then
    printf '%s|%s|%s\n' "$@"
  fi
}

at_least() {
  if [[ -r $1 ]] && (($(< "$1") < $2)); then
    setting "$@"
  fi
}

# What a file says: of `always [madvise] never` the word in brackets, of a mask of zeros one.
current() {
  local text
  text=$(tr '\t' ' ' < "$1")
  if [[ $text == *'['*']'* ]]; then
    text=${text#*'['}
    text=${text%%']'*}
  elif [[ $text =~ ^[0,]+$ ]]; then
    text=0
  fi
  printf '%s' "$text"
}

# The settings that are not as wanted.
changes() {
  local path wanted why
  while IFS='|' read -r path wanted why; do
    if [[ $(current "$path") != "$wanted" ]]; then
      printf '%s|%s|%s\n' "$path" "$wanted" "$why"
    fi
  done < <(settings)
}

show() {
  local path wanted why count=0
  while IFS='|' read -r path wanted why; do
    printf '%s\n    %s -> %s    %s\n' "$path" "$(current "$path")" "$wanted" "$why"
    count=$((count + 1))
  done < <(changes)
  if ((count == 0)); then
    echo 'Nothing to change: every setting that this machine has is as it should be.'
  else
    printf '\n%s settings would be changed; nothing was. --apply changes them, as root.\n' "$count"
  fi
}

apply() {
  [[ ! -e $state ]] || fail "$state is there: tuned already? Run --restore first, or name another --state"
  local path wanted why todo
  todo=$(changes)
  if [[ -z $todo ]]; then
    echo 'Nothing to change: every setting that this machine has is as it should be.'
    return
  fi
  while IFS='|' read -r path wanted why; do
    [[ -w $path ]] || fail "$path cannot be written: run this as root"
  done <<< "$todo"
  # All is recorded before anything is changed, so that whatever fails half-way can be undone.
  while IFS='|' read -r path wanted why; do
    printf '%s|%s\n' "$path" "$(current "$path")"
  done <<< "$todo" > "$state.partial"
  mv "$state.partial" "$state"
  while IFS='|' read -r path wanted why; do
    write "$path" "$wanted"
  done <<< "$todo"
  printf '\nWhat was there is recorded in %s; --restore puts it back.\n' "$state"
}

restore() {
  [[ -r $state ]] || fail "$state is not there: nothing was tuned, or the record is elsewhere (--state)"
  local path old failed=0
  # In reverse, for a setting may have moved another. What the kernel refused to change is as it was.
  while IFS='|' read -r path old; do
    if [[ $(current "$path") != "$old" ]]; then
      write "$path" "$old" || failed=1
    fi
  done < <(tac "$state")
  ((failed == 0)) || fail "not everything could be put back; the record stays in $state"
  rm "$state"
}

# A kernel that refuses one setting (a guest has no say over its clock) is told of, and the others go on.
write() {
  if printf '%s\n' "$2" 2> /dev/null > "$1"; then
    printf '%s: %s\n' "$1" "$2"
  else
    printf 'tune-host.sh: %s refuses %s\n' "$1" "$2" >&2
    [[ $action == apply ]]
  fi
}

usage() {
  printf 'tune-host.sh: %s; --help has them all\n' "$1" >&2
  exit 2
}

fail() {
  printf 'tune-host.sh: %s\n' "$1" >&2
  exit 1
}

main "$@"
