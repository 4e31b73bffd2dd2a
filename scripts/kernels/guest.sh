#!/bin/busybox sh
# shellcheck shell=dash
# The first process of a guest of scripts/kernels.sh: sets up what a program expects, then runs the checks that the file
# /checks/plan names, or the commands of /checks/commands. What is found goes to the second serial port.
#
# One line each, fields separated by tabs:
#
#     @ fact NAME VALUE                             something the table shows
#     @ case CHECK CASE pass|fail|skip SECONDS DETAIL
#     @ check CHECK SECONDS                         the check is over
#     @ end STATUS                                  all is over
#
# Lines that don't start so are output that is kept, for instance of `probe`.
#
# A check is one function, check_NAME, and to add one is to write it: scripts/kernels.sh finds it here. For each case it
# calls `begin CASE` and then one of `passed [DETAIL]`, `failed DETAIL` and `skipped REASON`; where the work is long,
# `chosen || continue` behind `begin` leaves out what nobody asked for. $short is not empty where few cases are to do.
# Its files go to the current folder, on a RAM disk.

# --- checks

check_probe() {
  begin 'probe'
  echometer-server probe > probe.txt 2> probe.err
  probe_status=$?
  cat probe.txt >&3
  expect_probe "$probe_status" probe.err "$(grep -m 1 FAULT probe.txt)"
  begin 'probe --json'
  echometer-server probe --json > probe.json 2> probe.err
  expect_probe $? probe.err "$(grep -m 1 '"fault": "' probe.json)"
  begin 'no feature is said to be offered that is newer than the kernel'
  wrong=''
  while read -r feature major minor; do
    if ! kernel_from "$major" "$minor" && grep -q "^$feature  *yes" probe.txt; then
      wrong="$wrong $feature ($major.$minor)"
    fi
  done << NEEDS
multishot-accept 5 19
multishot-recv 6 0
skip-success 5 17
direct 5 19
defer-taskrun 6 1
send-zc 6 0
no-sqarray 6 6
napi 6 9
bundle 6 10
bind-listen 6 11
NEEDS
  if [ -z "$wrong" ]; then passed; else failed "offered:$wrong"; fi

  begin '--engine auto'
  if serve_anew auto; then
    fact auto "$(ready_field engine)"
    fact features "$(ready_field features)"
    engine=epoll
    ! with_ring || engine=uring
    if [ "$(ready_field engine)" != $engine ]; then
      failed "it took $(ready_field engine) where $engine is right"
    elif [ "$(echo hello | timeout 10 nc 127.0.0.1 $port)" != hello ]; then
      failed 'a greeting did not come back'
    else
      passed
    fi
  else
    failed "$(why)"
  fi
  stop_server

  with_ring && return
  begin '--engine uring says why it cannot be, and what to do'
  if serve_anew uring; then
    failed 'it started'
  elif [ "$exit_status" != 1 ]; then
    failed "exit status $exit_status where 1 is right: $(why)"
  elif grep -q '^error: .*io_uring' server.err && grep -q 'epoll' server.err; then
    passed "$(why)"
  else
    failed "it names no cause, or no cure: $(why)"
  fi
  stop_server
}

# `expect_probe STATUS STDERR FAULT`: probe ends with 0 where io_uring is usable, and finds no fault in it.
expect_probe() {
  expected=1
  ! with_ring || expected=0
  if [ "$1" = $expected ] && [ -z "$3" ]; then
    passed
  else
    failed "exit status $1 where $expected is right; ${3:-$(head -n 1 "$2")}"
  fi
}

# Hundreds of connections that the client closes, and some tens that only close their half: afterwards no socket may be
# left that waits for the server to close (CLOSE_WAIT, and FIN_WAIT2 on the other side).
check_lifecycle() {
  for engine in $engines; do
    begin "$engine: start"
    if ! serve_anew "$engine"; then
      failed "$(why)"
      stop_server
      continue
    fi
    passed
    begin "$engine: connections come and go"
    opened=0
    # As many seconds as it takes.
    for _ in $(seq 20); do
      load -c 8 -s 64 -d 1s --requests-per-connection 2
      opened=$((opened + $(number connections_opened)))
      if [ -n "$load_error" ] || [ "$opened" -ge 300 ]; then break; fi
    done
    if [ -z "$load_error" ] && [ "$opened" -lt 300 ]; then load_error="only $opened connections in 20 s"; fi
    if [ -z "$load_error" ]; then passed "$opened connections"; else failed "$load_error"; fi
    begin "$engine: half-closing peers see the end"
    seen=0
    all=20
    for peer in $(seq $all); do
      # The client sends FIN behind its bytes, and ends when the server's FIN comes.
      if [ "$(echo "peer $peer" | timeout 10 nc 127.0.0.1 $port; echo $?)" = "peer $peer
0" ]; then
        seen=$((seen + 1))
      elif [ $((peer - seen)) -ge 3 ]; then
        # Three that wait in vain say enough.
        break
      fi
    done
    if [ $seen = $all ]; then passed; else failed "$seen of $peer saw it within 10 s"; fi
    begin "$engine: a half-close behind much data loses nothing"
    bytes=$(head -c 3000000 /dev/zero | timeout 60 nc 127.0.0.1 $port | wc -c)
    if [ "$bytes" = 3000000 ]; then passed; else failed "$bytes of 3000000 bytes came back, or no end"; fi
    begin "$engine: no socket is left"
    settle
    if [ -z "$left" ]; then passed; else failed "$left"; fi
    begin "$engine: it stops"
    if stop_server; then passed; else failed 'it had to be killed 20 s after SIGTERM'; fi
  done
}

# Waits until nothing but listeners and TIME_WAIT is left, 5 s at most; $left says what is.
settle() {
  for _ in $(seq 50); do
    left=$(cat /proc/net/tcp /proc/net/tcp6 | awk '
      $4 == "08" { n["CLOSE_WAIT"]++ } $4 == "05" { n["FIN_WAIT2"]++ } $4 == "04" { n["FIN_WAIT1"]++ }
      $4 == "09" { n["LAST_ACK"]++ } $4 == "01" { n["ESTABLISHED"]++ }
      END { for (state in n) printf "%s%d in %s", (some++ ? ", " : ""), n[state], state }')
    [ -n "$left" ] || return 0
    sleep 0.1
  done
}

# Every message is compared with what was sent.
check_sizes() {
  sizes='1B 64B 16383B 16KiB 16385B 20KiB 64KiB 262145B 300KiB 1MiB 4MiB'
  connections='1 8 64'
  these=$engines
  pace=10
  if [ -n "$short" ]; then
    sizes='64B 20KiB 300KiB'
    connections='1 8'
    these='auto epoll'
  fi
  for engine in $these; do
    begin "$engine: start"
    if ! serve_anew "$engine"; then
      failed "$(why)"
      stop_server
      continue
    fi
    passed
    for c in $connections; do
      for size in $sizes; do
        begin "$engine $size x $c"
        chosen || continue
        in_flight=$((c * $(bytes_of "$size") / 1048576))
        if [ $in_flight -lt 64 ]; then
          load -c "$c" -s "$size" -d 200ms
        else
          # Longer here than the five seconds for which a load generator waits for its last answers: so each connection
          # sends one message, and no other within the time. How long that is depends on what else the host does, so that
          # there is a second try.
          load -c "$c" -s "$size" -d $((2 + in_flight * pace / 100))s --think 60m
          if [ -n "$load_error" ]; then
            first_error=$load_error
            stop_server || first_error="$first_error; the server had to be killed"
            if serve_anew "$engine"; then
              load -c "$c" -s "$size" -d $((10 + in_flight / 2))s --think 60m
            else
              load_error="no new start: $(why)"
            fi
            [ -z "$load_error" ] || load_error="$first_error; second try: $load_error"
          fi
        fi
        if [ -z "$load_error" ] && [ "$answered" -lt "$c" ]; then
          load_error="$answered messages answered by $c connections"
        fi
        if [ -z "$load_error" ]; then
          passed "$answered messages"
          # Hundredths of a second for a MiB, and half as much again.
          [ $in_flight -lt 8 ] || [ $in_flight -ge 64 ] || pace=$((took * 3 / 2 / in_flight + 1))
        else
          failed "$load_error"
          # What hangs now must not be held against the next case.
          stop_server
          begin "$engine: start again"
          if ! serve_anew "$engine"; then
            failed "$(why)"
            break 2
          fi
        fi
      done
    done
    stop_server
  done
}

# On one port, with connections open that were served: each start must do.
check_restarts() {
  rounds=20
  these='uring tokio-uring epoll tokio blocking'
  if [ -n "$short" ]; then
    rounds=3
    these='uring epoll'
  fi
  for engine in $these; do
    case " $engines " in *" $engine "*) ;; *) continue ;; esac
    for signal in TERM KILL; do
      begin "$engine: $rounds starts after SIG$signal"
      chosen || continue
      good=0
      first_fault=''
      port=$((port + 1))
      for round in $(seq $rounds); do
        if serve "$engine"; then
          peers=''
          for _ in 1 2 3 4; do
            { echo hello; sleep 20; } | nc 127.0.0.1 $port > "peer.$_" &
            peers="$peers $!"
          done
          for _ in $(seq 50); do
            [ "$(cat peer.* 2> /dev/null | wc -l)" -lt 4 ] || break
            sleep 0.1
          done
          if [ "$(cat peer.* | wc -l)" = 4 ]; then
            good=$((good + 1))
          else
            : "${first_fault:=start $round: a connection got no answer}"
          fi
          rm -f peer.*
          kill -"$signal" "$server"
          await_end 10 || kill -KILL "$server"
          wait "$server" 2> /dev/null
          server=''
          # shellcheck disable=SC2086  # several
          kill $peers 2> /dev/null
        else
          : "${first_fault:=start $round: $(why)}"
          stop_server
        fi
      done
      if [ $good = $rounds ]; then passed; else failed "$good of $rounds; $first_fault"; fi
      killall sleep nc 2> /dev/null
      settle
    done
  done
}

# The suite's own cases, each in a process of its own, with ten times the time. Those in left-out.txt are skipped.
check_conformance() {
  faults=0
  conformance --list 2> /dev/null | sed -n 's/: test$//p' > cases
  while read -r case; do
    case $case in
      epoll::*) ;;
      # The runtimes' engines are not about the kernel.
      tokio::* | tokio_uring::* | blocking::*) continue ;;
      # Those that belong to no set use io_uring too.
      *) with_ring || continue ;;
    esac
    begin "$case"
    chosen || continue
    reason=$(left_out "$case")
    if [ -n "$reason" ]; then
      skipped "$reason"
      continue
    fi
    # Some of them wait for five minutes before they fail.
    if [ $faults = 10 ]; then
      begin 'the rest'
      failed 'not run: ten cases have failed'
      return
    fi
    ECHOMETER_SLOW=10 timeout -s KILL 400 conformance --exact "$case" --test-threads 1 > case.out 2>&1
    case_status=$?
    if [ $case_status = 0 ] && grep -q '^test .* ok$' case.out; then
      passed
    elif [ $case_status = 137 ]; then
      faults=$((faults + 1))
      failed 'it hung: ended after 400 s'
    else
      faults=$((faults + 1))
      cat case.out
      failed "$(grep -A 1 -m 1 'panicked at' case.out | tr '\n' ' ')"
    fi
    killall -KILL echometer-server 2> /dev/null
  done < cases
}

# `left_out CASE`: why it is, if it is. A line of the file is a pattern of the shell's, and the reason.
left_out() {
  while read -r pattern reason; do
    # shellcheck disable=SC2254  # a pattern
    case $1 in $pattern) echo "$reason" ;; esac
  done < /checks/left-out.txt
}

# --- what checks are made of

# The engines that this kernel can run, by what its version says.
engines_here() {
  if with_ring; then echo 'uring epoll tokio tokio-uring blocking'; else echo 'auto epoll tokio tokio-uring blocking'; fi
}

# The oldest ring that we serve with is 6.1's.
with_ring() {
  kernel_from 6 1
}

# `kernel_from MAJOR MINOR`
kernel_from() {
  [ "$kernel_major" -gt "$1" ] || { [ "$kernel_major" = "$1" ] && [ "$kernel_minor" -ge "$2" ]; }
}

port=7777

# `serve_anew ENGINE [FLAGS]`: the same as `serve`, on a port that no server had before.
serve_anew() {
  port=$((port + 1))
  serve "$@"
}

# `serve ENGINE [FLAGS]`: starts the server and waits for its first line, which goes to $ready, its number to $server.
# False if it didn't start: $exit_status has its status then, and `why` its message.
serve() {
  rm -f server.out
  mkfifo server.out
  # So that opening the pipe waits for nobody.
  exec 4<> server.out
  echometer-server --listen 127.0.0.1:$port --engine "$@" > server.out 2> server.err 3>&- 4>&- &
  server=$!
  ready=''
  for _ in $(seq 30); do
    # shellcheck disable=SC3045  # busybox has it
    if read -r -t 1 ready <&4; then break; fi
    if ! kill -0 "$server" 2> /dev/null; then break; fi
  done
  exec 4>&-
  cat server.err
  case $ready in "listening on "*) return 0 ;; esac
  kill -KILL "$server" 2> /dev/null
  wait "$server"
  exit_status=$?
  server=''
  return 1
}

# `ready_field NAME`: what the ready line says of it.
ready_field() {
  echo "$ready" | tr ' ' '\n' | sed -n "s/^$1=//p"
}

# The server's first word on why it doesn't run.
why() {
  if grep -q '^error' server.err; then grep -A 1 -m 1 '^error' server.err | tr '\n' ' '; else tail -n 1 server.err; fi
}

# `await_end SECONDS`: waits for the server's end.
await_end() {
  for _ in $(seq $(($1 * 20))); do
    kill -0 "$server" 2> /dev/null || return 0
    # Until it is waited for, one that has ended is still there.
    ! grep -q '^State:.*Z' "/proc/$server/status" 2> /dev/null || return 0
    sleep 0.05
  done
  return 1
}

# Ends the server; false if it has to be killed.
stop_server() {
  [ -n "$server" ] || return 0
  kill -TERM "$server" 2> /dev/null
  stopped=0
  await_end 20 || { stopped=1; kill -KILL "$server"; }
  wait "$server" 2> /dev/null
  server=''
  return $stopped
}

# `load FLAGS`: makes load; $answered is the number of messages, $load_error says what was wrong, if anything. That the
# figures are worth nothing (exit status 3, and a reason other than errors) is no fault here.
load() {
  timeout -s KILL 240 echometer-loadgen 127.0.0.1:$port -w 0s --pipeline 1 --verify --json "$@" > load.json 2> load.err
  load_status=$?
  load_error=''
  answered=$(number answered)
  answered=${answered:-0}
  case $load_status in
    137) load_error='the load generator hung: ended after 240 s' ;;
    0 | 3)
      if ! grep -q '"errors": {}' load.json; then
        load_error=$(sed -n '/"errors": {/,/}/p' load.json | tr -d ' \n')
      elif [ "$(number lost)$(number outstanding)" != 00 ]; then
        load_error="$answered answered, $(number outstanding) not, $(number lost) lost"
      fi
      ;;
    *) load_error=$(head -n 1 load.err) ;;
  esac
}

# `bytes_of 16KiB`
bytes_of() {
  case $1 in
    *KiB) echo $((${1%KiB} * 1024)) ;;
    *MiB) echo $((${1%MiB} * 1048576)) ;;
    *) echo "${1%B}" ;;
  esac
}

# `number NAME`: what the run file says, the first of that name behind `end`.
number() {
  sed -n '/^  "end": /,$p' load.json | sed -n "s/^    \"$1\": \([0-9]*\),*\$/\1/p" | head -n 1
}

begin() {
  case_name=$1
  began=$(ticks)
}

# Whether this case is among those asked for.
chosen() {
  # shellcheck disable=SC2254  # a pattern
  case $case_name in $pattern_of_check) return 0 ;; esac
  return 1
}

passed() { report pass "${1-}"; }
failed() { report fail "$1"; }
skipped() { report skip "$1"; }

report() {
  took=$(($(ticks) - began))
  chosen || [ "$1" = fail ] || return 0
  printf '@\tcase\t%s\t%s\t%s\t%d.%02d\t%s\n' "$check" "$case_name" "$1" $((took / 100)) $((took % 100)) \
    "$(echo "$2" | tr '\t\r\n' '   ' | sed 's/ *$//')" >&3
}

fact() {
  printf '@\tfact\t%s\t%s\n' "$1" "$2" >&3
}

# Hundredths of a second since the start.
ticks() {
  read -r up _ < /proc/uptime
  # Not "0.95", which would be octal.
  case $up in 0.*) up=1.00 ;; esac
  echo "${up%.*}${up#*.}"
}

# --- the first process

/bin/busybox --install -s /bin
export PATH=/bin HOME=/root LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
exec < /dev/null > /dev/console 2>&1
# As bytes are: no carriage returns.
stty -F /dev/ttyS1 raw -echo
exec 3> /dev/ttyS1
# In this order: each needs those before it.
for module in inet_diag tcp_diag unix_diag; do
  [ ! -e /modules/$module.ko ] || insmod /modules/$module.ko
done
ip link set lo up
# A guest's memory would give TCP 120 MiB of it, and 64 connections with 4 MiB on their way to and fro want more: they
# would stand still for want of room, whatever the server does.
echo '250000 300000 350000' > /proc/sys/net/ipv4/tcp_mem
ulimit -n 65536
cd /tmp || exit

if [ -e /checks/commands ]; then
  sh /checks/commands >&3 2>&3
  printf '@\tend\t%s\n' $? >&3
else
  release=$(uname -r)
  kernel_major=${release%%.*}
  kernel_minor=${release#*.}
  kernel_minor=${kernel_minor%%[!0-9]*}
  engines=$(engines_here)
  server='' short=''
  while IFS=/ read -r check pattern_of_check; do
    if [ "$check" = short ]; then
      short=yes
      continue
    fi
    pattern_of_check=${pattern_of_check:-*}
    check_began=$(ticks)
    "check_$check"
    printf '@\tcheck\t%s\t%d\n' "$check" $((($(ticks) - check_began) / 100)) >&3
  done < /checks/plan
  printf '@\tend\t0\n' >&3
fi
# Until the port has sent all, the end must wait.
sleep 0.5
reboot -f
