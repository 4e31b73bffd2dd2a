// The leanest correct epoll echo in plain C: the yardstick for `echometer-server --engine epoll`, which must cost no more
// than 3 % above it. One thread, edge-triggered, each message received and sent at once from the same buffer.
//
// Correct here means: every byte comes back in order, a half-closed peer gets all of it, a slow reader is bounded and
// harms nobody, a peer that never stops sending leaves turns for others, and a descriptor limit neither spins nor ends it.
//
//     cc -O2 -Wall -Wextra -o target/baseline-epoll scripts/baselines/epoll.c
//     target/release/echometer compare c='target/baseline-epoll {port}' epoll -c 50
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024, EVENTS = 256, RECEIVES_PER_TURN = 16 };
#define PEER_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)

// What the socket of this number still owes: allocated only while the socket is full.
struct peer {
  char *owed;
  size_t from, to;
  int watches_writable;
};

static char buffer[BUFFER];
static struct peer *peers;
static int set, listener, listening;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void watch(int op, int fd, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(set, op, fd, &event) < 0) die("epoll_ctl");
}

static void listen_again(int yes) {
  if (yes == listening) return;
  listening = yes;
  watch(EPOLL_CTL_MOD, listener, yes ? EPOLLIN : 0);
}

static void drop(int fd) {
  free(peers[fd].owed);
  close(fd);
  listen_again(1);
}

static void accept_all(void) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      // At the descriptor limit the queue stays full and would wake us for ever: until a connection closes.
      if (errno == EMFILE || errno == ENFILE) listen_again(0);
      if (errno == ECONNABORTED || errno == EINTR) continue;
      return;
    }
    peers[fd] = (struct peer){0};
    watch(EPOLL_CTL_ADD, fd, PEER_EVENTS);
  }
}

// Sends what it can and keeps the rest. Returns -1 if the connection is lost, 0 if the socket is full, 1 if all is sent.
static int echo(int fd, const char *bytes, size_t n) {
  struct peer *peer = &peers[fd];
  ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) return -1;
  if (sent < 0) sent = 0;
  if ((size_t)sent == n) return 1;
  if (bytes == buffer) {
    if (!(peer->owed = malloc(n - sent))) return -1;
    memcpy(peer->owed, bytes + sent, n - sent);
    peer->from = 0, peer->to = n - sent;
    // Once in a connection's life: an edge-triggered EPOLLOUT that stays on fires only after the socket was full.
    if (!peer->watches_writable) watch(EPOLL_CTL_MOD, fd, PEER_EVENTS | EPOLLOUT);
    peer->watches_writable = 1;
  } else {
    peer->from += sent;
  }
  return 0;
}

static void turn(int fd, unsigned events) {
  struct peer *peer = &peers[fd];
  if (peer->owed) {
    int done = echo(fd, peer->owed + peer->from, peer->to - peer->from);
    if (done < 0) return drop(fd);
    if (!done) return;
    free(peer->owed);
    peer->owed = NULL;
    events = EPOLLRDHUP;  // What came meanwhile, an end too, was announced by an edge that is gone.
  }
  for (int receives = 0; receives < RECEIVES_PER_TURN; receives++) {
    ssize_t n = recv(fd, buffer, BUFFER, 0);
    if (n == 0) return drop(fd);
    if (n < 0) {
      if (errno != EAGAIN) drop(fd);
      return;
    }
    int done = echo(fd, buffer, n);
    if (done < 0) return drop(fd);
    if (!done) return;
    // Less than asked means that the socket is empty, unless an end lies behind it (epoll(7)).
    if (n < BUFFER && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
  }
  // Its turn is over; changing the watch makes the kernel announce anew what is there.
  watch(EPOLL_CTL_MOD, fd, PEER_EVENTS | (peer->watches_writable ? EPOLLOUT : 0));
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: %s PORT\n", argv[0]), 2;
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (!(peers = calloc(limit.rlim_cur, sizeof *peers))) die("calloc");

  int one = 1;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // inherited by accepted sockets
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons(atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) die("listen");
  set = epoll_create1(EPOLL_CLOEXEC);
  watch(EPOLL_CTL_ADD, listener, EPOLLIN);
  listening = 1;

  static struct epoll_event events[EVENTS];
  for (;;) {
    int n = epoll_wait(set, events, EVENTS, -1);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
      if (events[i].data.fd == listener) accept_all();
      else turn(events[i].data.fd, events[i].events);
    }
  }
}
