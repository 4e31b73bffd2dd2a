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
ulimit -n 65536
cd /tmp || exit

if [ -e /checks/commands ]; then
  sh /checks/commands >&3 2>&3
  printf '@\tend\t%s\n' $? >&3
fi
# Until the port has sent all, the end must wait.
sleep 0.5
reboot -f
