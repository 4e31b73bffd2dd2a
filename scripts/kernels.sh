#!/usr/bin/env bash
# Runs the programs on other kernels than this machine's: boots real kernels of Debian in an emulated machine (QEMU, no
# KVM and no root needed), with busybox, our programs and nothing else, and checks there what the server promises.
#
#     scripts/kernels.sh                           every kernel, every check
#     scripts/kernels.sh 6.1 sid                   these kernels only
#     scripts/kernels.sh --only sizes 6.1          this check only; may be given again
#     scripts/kernels.sh --only 'sizes/uring 64KiB*' 6.1       and of it only the cases that the pattern fits
#     scripts/kernels.sh --write                   writes the table of docs/kernels.md too (the rows of these kernels)
#     scripts/kernels.sh --short                   what CI does: 6.1 and the newest, a few cases of each check
#     scripts/kernels.sh --run 'COMMANDS' 6.1      runs shell commands there instead, and prints what they print
#
# A kernel is named by its suite or by its version:
#
#     bullseye 5.10    bookworm 6.1    trixie 6.12    trixie-backports    sid    newest (of the last two)
#
# Checks, one function each in scripts/kernels/guest.sh:
#
#     probe        what the kernel offers, what `--engine auto` takes, and that both are true
#     lifecycle    connections that come and go leave no socket behind, and each peer sees the end
#     sizes        messages of 1 B to 4 MiB come back byte for byte, by 1, 8 and 64 connections, with every engine
#     restarts     the server starts again at once on the port it had, after SIGTERM and after SIGKILL
#     conformance  the conformance suite, for epoll and for each set of features of io_uring
#
#   --binaries DIR    the programs to run there; without it they are built (release). For the conformance check DIR must
#                     be a folder of cargo's, with deps/conformance-* in it: `cargo test --release --no-run -p
#                     echometer-server --test conformance`
#   --cache DIR       where kernels are kept; also by ECHOMETER_KERNELS [default: target/kernels]
#   --update          fetches a kernel anew that is there already, in case the suite has a newer one
#   --jobs N          kernels at a time [default: 1]
#   --limit SECONDS   ends a guest that runs longer [default: 5400; with --short 150, with --run 600]
#   --show            prints the guest's console (kernel messages, output of the checks) while it runs
#
# Kernels come from Debian's archive by apt, with lists and settings of our own, checked by the archive's key, and are
# unpacked, not installed. Emulation is slow: times found there say nothing about the kernel. What a guest said is kept
# in target/kernels-log/. Needs qemu-system-x86, busybox-static, cpio, apt and debian-archive-keyring, on amd64.
#
# Exits 0 if all checks passed, 1 if one failed, 2 for a usage error, 3 if a program that is needed or a kernel can't be
# had; with --run as COMMANDS do.
set -o errexit -o nounset -o pipefail
shopt -s inherit_errexit

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
help_if_asked "$@"

mirror=http://deb.debian.org
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
suites=(bullseye bookworm trixie trixie-backports sid)
# A check is a function in the guest's script, and they are run in the order in which they stand there.
mapfile -t checks < <(sed --quiet 's/^check_\([a-z_]*\)() {$/\1/p' "$(dirname "${BASH_SOURCE[0]}")/kernels/guest.sh")
# Enough for sock_diag, with which the listen queue's depth is read: all else that is needed is built in.
modules=(inet_diag tcp_diag unix_diag)
# shellcheck disable=SC2016  # as Markdown has it
table_head='| suite | kernel | `auto` takes | with | checks passed | left out | run on |
|---|---|---|---|---|---|---|'

main() {
  read_flags "$@"
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  need_tools
  scratch=$(mktemp --directory)
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  local suite chosen=()
  for suite in "${kernels[@]}"; do
    [[ $suite != newest ]] || suite=$(newest)
    [[ " ${chosen[*]} " == *" $suite "* ]] || chosen+=("$suite")
  done
  for suite in "${chosen[@]}"; do
    fetch "$suite"
  done
  find_binaries
  pack_programs > "$scratch/programs.cpio"

  if [[ -n $commands ]]; then
    ((${#chosen[@]} == 1)) || usage "--run takes one kernel: these are ${chosen[*]}"
    run_commands "${chosen[0]}"
  fi
  check_kernels "${chosen[@]}"
  [[ -z $write ]] || write_table "${chosen[@]}"
  show_table "${chosen[@]}"
  for suite in "${chosen[@]}"; do
    # Without the file nobody has looked.
    [[ -e $scratch/$suite.failed && ! -s $scratch/$suite.failed ]] || exit 1
  done
}

usage() {
  printf 'kernels.sh: %s: see %s --help\n' "$1" "$0" >&2
  exit 2
}

fail() {
  printf 'kernels.sh: %s\n' "$@" >&2
  exit 1
}

unavailable() {
  printf 'kernels.sh: %s\n' "$@" >&2
  exit 3
}

read_flags() {
  local target=${CARGO_TARGET_DIR:-target}
  kernels=() only=() commands='' write='' short='' binaries='' update='' jobs=1 limit='' show=''
  # Relative ones are meant from where we are called, and from the root by default.
  cache=$target/kernels logs=$target/kernels-log
  [[ -z ${ECHOMETER_KERNELS-} ]] || cache=$(realpath --canonicalize-missing -- "$ECHOMETER_KERNELS")
  while (($# > 0)); do
    case $1 in
      --only | --run | --binaries | --cache | --jobs | --limit)
        (($# >= 2)) || usage "$1 needs a value"
        ;;&
      --only) only+=("$2") && shift ;;
      --run) commands=$2 && shift ;;
      --binaries) binaries=$(realpath --canonicalize-existing -- "$2") || exit 1; shift ;;
      --cache) cache=$(realpath --canonicalize-missing -- "$2") && shift ;;
      --jobs) jobs=$2 && shift ;;
      --limit) limit=$2 && shift ;;
      --update) update=yes ;;
      --write) write=yes ;;
      --short) short=yes ;;
      --show) show=yes ;;
      5.10) kernels+=(bullseye) ;;
      6.1) kernels+=(bookworm) ;;
      6.12) kernels+=(trixie) ;;
      newest) kernels+=(newest) ;;
      -*) usage "there is no flag $1" ;;
      *)
        [[ " ${suites[*]} " == *" $1 "* ]] || usage "no kernel is known as '$1' (${suites[*]}, 5.10, 6.1, 6.12, newest)"
        kernels+=("$1")
        ;;
    esac
    shift
  done
  [[ $jobs =~ ^[1-9][0-9]?$ ]] || usage "--jobs is a number from 1 on"
  [[ $limit =~ ^([1-9][0-9]{0,5})?$ ]] || usage "--limit is a number of seconds"
  [[ -z $commands || -z $write$short${only[*]-} ]] || usage "--run goes alone: no checks are run then"
  [[ -z $write || ( -z $short && ${only[*]-} != */* ) ]] || usage "--write wants whole checks: the table says what passed"
  local name
  for name in "${only[@]}"; do
    [[ " ${checks[*]} " == *" ${name%%/*} "* ]] || usage "there is no check '${name%%/*}' (${checks[*]})"
  done
  if ((${#kernels[@]} == 0)); then
    if [[ -n $short ]]; then kernels=(bookworm newest); else kernels=("${suites[@]}"); fi
  fi
  if [[ -z $limit ]]; then
    limit=5400
    [[ -z $short ]] || limit=150
    [[ -z $commands ]] || limit=600
  fi
}

need_tools() {
  local tool package missing=()
  [[ $(uname --machine) == x86_64 ]] || unavailable "the kernels are those of amd64, and programs built here don't run on them"
  while read -r tool package; do
    command -v "$tool" > /dev/null || missing+=("$package")
  done <<< 'qemu-system-x86_64 qemu-system-x86
busybox busybox-static
cpio cpio
apt-get apt
dpkg-deb dpkg
xz xz-utils
ldd libc-bin'
  [[ -r $keyring ]] || missing+=(debian-archive-keyring)
  ((${#missing[@]} == 0)) || unavailable "these packages are missing: ${missing[*]}: install them, and run this again"
  ! ldd "$(command -v busybox)" > /dev/null 2>&1 \
    || unavailable "busybox needs shared libraries here: install busybox-static in its place, and run this again"
}

clean_up() {
  local file
  # timeout(1) signals twice, and the second must not cut this short.
  trap '' INT TERM
  # Emulators that still run when this is cut short, by their numbers; with them end the jobs that read from them.
  for file in "$scratch"/*.pid; do
    [[ ! -e $file ]] || kill "$(< "$file")" 2> /dev/null || true
  done
  wait
  # What guests said is kept, of the last run.
  mkdir --parents "$logs"
  find "$scratch" -maxdepth 1 \( -name '*.console' -o -name '*.results' \) -exec mv --target-directory="$logs" {} +
  rm --recursive --force "$scratch"
}

# --- kernels

# `with_apt SUITE COMMAND...`: runs one of apt's programs as if the machine had this suite and nothing installed.
# The host's settings of how to fetch (a proxy, a clock that is off) are kept; its sources, lists, pins and hooks are not touched nor used.
with_apt() {
  local suite=$1 home
  shift
  home=$(realpath "$cache/$suite/apt")
  APT_CONFIG=$home/apt.conf "$@"
}

set_up_apt() {
  local suite=$1 home=$cache/$1/apt
  mkdir --parents "$home"/{parts,lists/partial,archives/partial}
  home=$(realpath "$home")
  : > "$home/status"
  {
    apt-config dump | grep '^Acquire::\(http\|https\|Check-\|ForceIPv\)' || true
    cat << CONF
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
Dir::Etc::main "/dev/null";
Dir::Etc::parts "$home/parts";
Dir::Etc::sourcelist "$home/sources.list";
Dir::Etc::sourceparts "$home/parts";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$home/parts";
Dir::State "$home";
Dir::State::lists "$home/lists";
Dir::State::status "$home/status";
Dir::Cache "$home";
Dir::Cache::archives "$home/archives";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
    # As root apt would fetch as a user of its own, who can't write into our folders.
    ((EUID != 0)) || echo 'APT::Sandbox::User "root";'
  } > "$home/apt.conf"
  {
    echo "deb [signed-by=$keyring] $mirror/debian $suite main"
    case $suite in
      bullseye | bookworm | trixie) echo "deb [signed-by=$keyring] $mirror/debian-security $suite-security main" ;;
    esac
  } > "$home/sources.list"
}

# What the suite's lists say today, once a run.
update_lists() {
  local suite=$1
  [[ ! -e $scratch/$suite.lists ]] || return 0
  set_up_apt "$suite"
  if ! with_apt "$suite" apt-get update --quiet=2 --error-on=any > "$scratch/$suite.lists" 2>&1; then
    cat "$scratch/$suite.lists" >&2
    unavailable "the lists of $suite can't be had from $mirror"
  fi
}

# The version of the suite's kernel: of the one kept here, else of the one in the archive.
version_of() {
  local suite=$1
  if [[ -z $update && -e $cache/$suite/version ]]; then
    cut --delimiter=' ' --fields=2 "$cache/$suite/version"
  else
    update_lists "$suite"
    candidate "$suite"
  fi
}

# The version of the kernel that the suite has today.
candidate() {
  with_apt "$1" apt-cache show --no-all-versions linux-image-cloud-amd64 | sed --quiet 's/^Version: //p'
}

# Which of two suites has the newest kernel. What was found once holds until --update, like the kernels themselves.
newest() {
  local known=$cache/newest backports sid suite=sid
  if [[ -z $update && -e $known ]]; then
    cat "$known"
    return
  fi
  backports=$(version_of trixie-backports)
  sid=$(version_of sid)
  if dpkg --compare-versions "$backports" ge "$sid"; then suite=trixie-backports; fi
  mkdir --parents "$cache"
  echo "$suite" | tee "$known"
}

# Leaves in the cache: the kernel, the modules that we load, and `version`: release and package version.
fetch() {
  local suite=$1 to=$cache/$1 lock packages package release module file
  if [[ -z $update && -e $to/version ]]; then return; fi
  mkdir --parents "$to"
  # Another run may share the folder, and be at it.
  exec {lock}> "$to/lock"
  flock "$lock"
  update_lists "$suite"
  if [[ -e $to/version && $(cut --delimiter=' ' --fields=2 "$to/version") == "$(candidate "$suite")" ]]; then return; fi
  # From the meta package down: newer kernels come as several packages.
  mapfile -t packages < <(with_apt "$suite" apt-cache depends --recurse --important linux-image-cloud-amd64 \
    | grep '^linux-\(image\|binary\|modules\)-[0-9].*-cloud-amd64$' | sort --unique)
  ((${#packages[@]} > 0)) || unavailable "$suite has no kernel called linux-image-cloud-amd64"
  rm --recursive --force "$to/root" "$to/debs"
  mkdir --parents "$to/root" "$to/debs"
  printf 'kernels.sh: fetching %s\n' "${packages[*]}" >&2
  if ! (cd "$to/debs" && with_apt_from_inside "$suite" apt-get download --quiet=2 "${packages[@]}") > "$scratch/$suite.download" 2>&1; then
    cat "$scratch/$suite.download" >&2
    unavailable "the kernel of $suite can't be had from $mirror"
  fi
  for package in "$to"/debs/*.deb; do
    dpkg-deb --extract "$package" "$to/root"
  done
  release=$(printf '%s\n' "${packages[@]}" | sed --quiet 's/^linux-image-//p')
  # In /boot, or among the modules.
  file=$(find "$to/root" -name 'vmlinuz*' -type f)
  [[ -n $release && -f $file ]] || fail "the packages of $suite hold no kernel, or several: ${packages[*]}"
  mv "$file" "$to/vmlinuz"
  rm --recursive --force "$to/modules"
  mkdir "$to/modules"
  for module in "${modules[@]}"; do
    # One that is built in has no file.
    while read -r file; do
      case $file in
        *.xz) xz --decompress --stdout "$file" > "$to/modules/$module.ko" ;;
        *.zst) zstd --quiet --decompress --stdout "$file" > "$to/modules/$module.ko" ;;
        *) cp "$file" "$to/modules/$module.ko" ;;
      esac
    done < <(find "$to/root" -name "$module.ko*" -type f)
  done
  package=$(dpkg-deb --field "$to"/debs/linux-image-*.deb Version)
  echo "$release $package" > "$to/version"
  rm --recursive --force "$to/root" "$to/debs"
}

# The same where the current folder is another.
with_apt_from_inside() {
  local home
  home=$(realpath ../apt)
  shift
  APT_CONFIG=$home/apt.conf "$@"
}

# --- what goes into the guest

find_binaries() {
  local wanted=(echometer-server echometer-loadgen echometer) name
  if [[ -z $binaries ]]; then
    binaries=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}/release")
    # Where there is no cargo, what was built elsewhere may be there.
    if command -v cargo > /dev/null; then
      cargo build --locked --release --package echometer-server --package echometer-loadgen --package echometer
      if [[ -z $commands ]] && wants conformance; then
        cargo test --locked --release --no-run --package echometer-server --test conformance
      fi
    fi
  fi
  for name in "${wanted[@]}"; do
    [[ -x $binaries/$name ]] || fail "$binaries/$name is missing: build it (cargo build --release), or name another folder by --binaries"
  done
  # The newest, if cargo kept several.
  suite_binary=$(find "$binaries/deps" -maxdepth 1 -name 'conformance-*' -type f -executable -printf '%T@ %p\n' 2> /dev/null \
    | sort --numeric-sort | tail -n 1 | cut --delimiter=' ' --fields=2)
  if wants conformance && [[ -z $commands && -z $suite_binary ]]; then
    fail "$binaries/deps holds no conformance suite: cargo test --release --no-run --package echometer-server --test conformance"
  fi
}

# `wants CHECK`: whether this run has it.
wants() {
  local name
  if [[ -n $short && $1 == conformance ]]; then return 1; fi
  ((${#only[@]} > 0)) || return 0
  for name in "${only[@]}"; do
    [[ ${name%%/*} != "$1" ]] || return 0
  done
  return 1
}

# An archive for the kernel to unpack: busybox, the programs, and the shared libraries that they need.
pack_programs() {
  local root=$scratch/root program library
  mkdir --parents "$root"/{bin,dev,proc,sys,tmp,etc,root,checks,modules}
  cp "$(command -v busybox)" "$root/bin/busybox"
  for program in echometer-server echometer-loadgen echometer; do
    install_program "$binaries/$program" "$root/bin/$program"
  done
  if [[ -n $suite_binary ]]; then
    install_program "$suite_binary" "$root/bin/conformance"
    # The suite starts the server by the path that cargo built it at.
    mkdir --parents "$root$binaries"
    ln --symbolic --force /bin/echometer-server "$root$binaries/echometer-server"
  fi
  while read -r library; do
    mkdir --parents "$root${library%/*}"
    cp --dereference "$library" "$root$library"
  done < <(ldd "$binaries"/{echometer-server,echometer-loadgen,echometer} ${suite_binary:+"$suite_binary"} \
    | grep --only-matching '/[^ ]*\.so[^ ]*' | sort --unique)
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/bin/sh' > "$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' > "$root/etc/group"
  printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
  cp scripts/kernels/guest.sh "$root/init"
  cp scripts/kernels/left-out.txt "$root/checks/left-out.txt"
  chmod +x "$root/init"
  pack "$root"
}

# Debug information would only take long to load.
install_program() {
  cp "$1" "$2"
  if command -v strip > /dev/null; then strip --strip-debug "$2"; fi
}

pack() {
  (cd "$1" && find . -mindepth 1 | cpio --quiet --create --format=newc --owner=0:0)
}

# --- a guest

# `boot SUITE JOB`: starts the kernel with the programs and the folder JOB, and passes on what comes over the second
# serial port; the first is the console. Ends the guest that runs too long: the last line then says so.
boot() {
  local suite=$1 job=$2 status=0 console=$scratch/$1.console
  mkdir --parents "$job/modules" "$job/checks"
  cp "$cache/$suite"/modules/*.ko "$job/modules/"
  { cat "$scratch/programs.cpio"; pack "$job"; } > "$job.initrd"
  : > "$console"
  # Other models of a processor, and threads of TCG's, make some of these kernels panic. A huge page that the kernel gives
  # unasked would hide what a connection costs.
  timeout --kill-after=10s "${limit}s" \
    qemu-system-x86_64 -accel tcg,thread=single -cpu Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid -smp 1 -m 3072 \
    -nodefaults -no-user-config -display none -no-reboot \
    -serial "file:$console" -serial file:/dev/stdout \
    -kernel "$cache/$suite/vmlinuz" -initrd "$job.initrd" \
    -append "console=ttyS0 loglevel=4 panic=-1 mitigations=off transparent_hugepage=madvise" < /dev/null &
  echo $! > "$scratch/$suite.pid"
  [[ -z $show ]] || tail --follow --pid=$! "$console" >&2 &
  wait "$(< "$scratch/$suite.pid")" || status=$?
  rm --force "$job.initrd" "$scratch/$suite.pid"
  if ((status == 124 || status == 137)); then
    printf '@\tcut\tthe guest was ended after %s s\n' "$limit"
  fi
}

run_commands() {
  local suite=$1 line status=''
  mkdir --parents "$scratch/job/checks"
  printf '%s\n' "$commands" > "$scratch/job/checks/commands"
  while IFS= read -r line; do
    case $line in
      *$'@\tend\t'*)
        status=${line##*$'@\tend\t'}
        printf '%s' "${line%%$'@\tend\t'*}"
        ;;
      *$'@\tcut\t'*) printf 'kernels.sh: %s\n' "${line##*$'\t'}" >&2 ;;
      *) printf '%s\n' "$line" ;;
    esac
  done < <(boot "$suite" "$scratch/job")
  if [[ -z $status ]]; then
    echo "kernels.sh: the guest ended before the commands did; its console:" >&2
    tail -n 30 "$scratch/$suite.console" >&2
    exit 1
  fi
  exit "$status"
}

# --- checks

# Runs the checks on each kernel, `--jobs` at a time. What a kernel's guest said is in SUITE.results afterwards, and
# SUITE.failed is not empty if something failed.
check_kernels() {
  local suite
  for suite in "$@"; do
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n || true; done
    if ((jobs == 1)); then
      check_kernel "$suite"
    else
      check_kernel "$suite" > "$scratch/$suite.said" && cat "$scratch/$suite.said" &
    fi
  done
  wait
}

check_kernel() {
  local suite=$1 check mark name case status seconds detail release package
  local -A good=() bad=() left=()
  mkdir --parents "$scratch/$suite/checks"
  plan > "$scratch/$suite/checks/plan"
  read -r release package < "$cache/$suite/version"
  printf '\n%s: Linux %s, package %s\n' "$suite" "$release" "$package"
  : > "$scratch/$suite.results"
  while IFS= read -r line; do
    printf '%s\n' "$line" >> "$scratch/$suite.results"
    IFS=$'\t' read -r mark name check case status seconds detail <<< "$line"
    [[ $mark == '@' ]] || continue
    case $name in
      case)
        case $status in
          pass) good[$check]=$((${good[$check]-0} + 1)) ;;
          fail)
            bad[$check]=$((${bad[$check]-0} + 1))
            printf '  FAILED %s: %s (%s s): %s\n' "$check" "$case" "$seconds" "$detail"
            ;;
          skip) left[$check]=$((${left[$check]-0} + 1)) ;;
        esac
        ;;
      check) printf '  %s: %s of %s passed%s, %s s\n' "$check" "${good[$check]-0}" $((${good[$check]-0} + ${bad[$check]-0})) \
        "${left[$check]+, ${left[$check]} left out}" "$case" ;;
      # The one field of these is where the check's name is in the others.
      cut) printf '  FAILED: %s\n' "$check" ;;
    esac
  done < <(boot "$suite" "$scratch/$suite")
  faults "$suite" > "$scratch/$suite.failed"
  grep '^no ' "$scratch/$suite.failed" | sed 's/^/  FAILED: /' || true
}

# A line a check: its name, and the cases of it that are asked for.
plan() {
  local check
  [[ -z $short ]] || echo short
  for check in "${checks[@]}"; do
    if ! wants "$check"; then continue; fi
    if ((${#only[@]} == 0)); then echo "$check"; fi
    printf '%s\n' "${only[@]}" | grep "^$check\(/\|\$\)" || true
  done
}

# What failed on a kernel, a line each: cases, checks that didn't come to their end, and checks without a case.
faults() {
  awk -F '\t' '
    NR == FNR { if ($0 != "short") { sub("/.*", ""); planned[$0] } next }
    $1 != "@" { next }
    $2 == "case" { cases[$3]++; if ($5 == "fail") print "case " $3 ": " $4 }
    $2 == "check" { done[$3] }
    END {
      for (check in planned) {
        if (!(check in done)) print "no end of " check ": see the console in the folder of logs"
        else if (!(check in cases)) print "no case of " check " is among those asked for"
      }
    }' "$scratch/$1/checks/plan" "$scratch/$1.results"
}

# --- the table

# `table_row SUITE`: its row of docs/kernels.md, from what its guest said.
table_row() {
  local release package
  read -r release package < "$cache/$1/version"
  awk -F '\t' -v suite="$1" -v kernel="$release ($package)" -v order="${checks[*]}" -v today="$(date --utc +%F)" '
    $1 != "@" { next }
    $2 == "fact" { fact[$3] = $4 }
    $2 == "case" && $5 == "pass" { good[$3]++; all[$3]++ }
    $2 == "case" && $5 == "fail" {
      all[$3]++
      if (++bad <= 3) failed = failed (bad > 1 ? "; " : "") $3 ": " $4
    }
    $2 == "case" && $5 == "skip" {
      # A case of the suite is the same for each set of features.
      name = $4; sub(/^[a-z0-9_]*::/, "", name)
      if (!((name, $7) in times)) names[$7] = names[$7] (names[$7] == "" ? "" : ", ") "`" name "`"
      times[name, $7]++
    }
    $2 == "check" { ended[$3] }
    END {
      n = split(order, check, " ")
      for (i = 1; i <= n; i++) {
        if (!(check[i] in all)) { passed = passed (passed == "" ? "" : ", ") check[i] " not run"; continue }
        passed = passed (passed == "" ? "" : ", ") check[i] " " (good[check[i]] + 0) " of " all[check[i]]
        if (!(check[i] in ended)) passed = passed " (cut short)"
      }
      if (bad) passed = passed ". **Failed: " failed (bad > 3 ? " and " bad - 3 " more" : "") "**"
      for (why in names) out = out (out == "" ? "" : "; ") names[why] ": " why
      gsub(",", ", ", fact["features"])
      print "| " suite " | " kernel " | " fact["auto"] " | " fact["features"] " | " passed " | " (out == "" ? "nothing" : out) " | " today " |"
    }' "$scratch/$1.results"
}

show_table() {
  local suite
  printf '\n%s\n' "$table_head"
  for suite in "$@"; do
    table_row "$suite"
  done
}

# Puts the rows of these kernels into docs/kernels.md, between its marks; the others stay.
write_table() {
  local page=docs/kernels.md begin='<!-- kernels.sh --write: begin -->' end='<!-- kernels.sh --write: end -->' suite
  if [[ $(grep --count --fixed-strings --regexp="$begin" --regexp="$end" "$page") != 2 ]]; then
    fail "$page lacks the marks of its table"
  fi
  {
    sed "/^$begin/q" "$page"
    printf '\n%s\n' "$table_head"
    for suite in "${suites[@]}"; do
      if [[ " $* " == *" $suite "* ]]; then
        table_row "$suite"
      else
        grep "^| $suite |" "$page" || true
      fi
    done
    printf '\n'
    sed --quiet "/^$end/,\$p" "$page"
  } > "$scratch/page"
  cat "$scratch/page" > "$page"
}

main "$@"
