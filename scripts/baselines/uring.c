// The leanest correct io_uring echo in plain C: the yardstick for `echometer-server --engine uring`. One thread, one ring,
// direct descriptors, multishot receives into a buffer ring, and a send a message. Needs liburing 2.3 and Linux 6.1.
//
// Correct here means what it means in epoll.c: every byte comes back in order, a half-closed peer gets all of it, a slow
// reader is bounded and harms nobody, and a full table of connections neither spins nor drops those that wait.
//
// A send asks the kernel not to wait (MSG_DONTWAIT), so that it is over when the submit returns and no slow reader ever
// holds a buffer of the pool. What the socket did not take is copied to the heap, and sent from there by one that waits.
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { SQ = 1024, CQ = 4096, BUFFERS = 1024, BUFFER = 4096, OWED_MAX = 64 * 1024, SLOTS_MAX = 32768 };
enum op { ACCEPT, RECEIVE, SEND, SEND_OWED, CANCEL, CLOSE };

struct peer {
  char *flight, *owed;  // what is being sent from the heap, and what follows it: both only while the socket is full
  unsigned from, to, n, room;
  char sending, receiving, cancelling, ended, lost;
};

static struct io_uring ring;
static struct io_uring_buf pool[BUFFERS] __attribute__((aligned(4096)));
static char buffers[BUFFERS][BUFFER];
static unsigned lengths[BUFFERS];
static struct peer peers[SLOTS_MAX];
static int parked[SLOTS_MAX], parked_n;  // receives that found no buffer
static int listener, accepting, slots, taken;

static void check(int result, const char *what) {
  if (result < 0) fprintf(stderr, "%s: %s\n", what, strerror(-result)), exit(1);
}

static struct io_uring_sqe *entry(enum op op, int slot, unsigned buffer) {
  struct io_uring_sqe *sqe;
  while (!(sqe = io_uring_get_sqe(&ring))) io_uring_submit(&ring);
  sqe->user_data = (__u64)op << 56 | (__u64)buffer << 32 | slot;
  return sqe;
}

// One at a time, and only while there is a slot: a multishot accept would drop those that it has no slot for.
static void accept_next(void) {
  if (accepting || taken == slots) return;
  struct io_uring_sqe *sqe = entry(ACCEPT, 0, 0);
  io_uring_prep_accept(sqe, listener, NULL, NULL, 0);
  sqe->file_index = IORING_FILE_INDEX_ALLOC;  // liburing 2.3's own function gets this value wrong
  accepting = 1;
}

static void receive(int slot) {
  struct io_uring_sqe *sqe = entry(RECEIVE, slot, 0);
  io_uring_prep_recv_multishot(sqe, slot, NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT | IOSQE_FIXED_FILE;
  peers[slot].receiving = 1;
}

// One per connection at a time: a second one would overtake the rest of a first that came up short.
static void start_send(enum op op, int slot, unsigned buffer, const char *bytes, unsigned n, int flags) {
  struct io_uring_sqe *sqe = entry(op, slot, buffer);
  io_uring_prep_send(sqe, slot, bytes, n, MSG_NOSIGNAL | MSG_WAITALL | flags);
  sqe->flags |= IOSQE_FIXED_FILE;
  peers[slot].sending = 1;
}

static void give_back(unsigned buffer) {
  io_uring_buf_ring_add((struct io_uring_buf_ring *)pool, buffers[buffer], BUFFER, buffer, BUFFERS - 1, 0);
  io_uring_buf_ring_advance((struct io_uring_buf_ring *)pool, 1);
}

static void cancel_receive(int slot) {
  if (!peers[slot].cancelling) io_uring_prep_cancel64(entry(CANCEL, slot, 0), (__u64)RECEIVE << 56 | slot, 0);
  peers[slot].cancelling = 1;
}

static void owe(struct peer *peer, const char *bytes, unsigned n) {
  if (peer->room < peer->n + n) {
    peer->room = 2 * (peer->n + n);
    if (!(peer->owed = realloc(peer->owed, peer->room))) check(-ENOMEM, "realloc");
  }
  memcpy(peer->owed + peer->n, bytes, n);
  peer->n += n;
}

// What follows from what has happened. A connection is closed when the kernel holds nothing of it any more, so that no
// completion can name a slot that has gone to somebody else.
static void settle(int slot) {
  struct peer *peer = &peers[slot];
  if (peer->sending) return;
  if (!peer->lost) {
    if (peer->from == peer->to && (peer->flight || peer->n)) {
      free(peer->flight);
      peer->flight = peer->owed, peer->from = 0, peer->to = peer->n;
      peer->owed = NULL, peer->n = peer->room = 0;
    }
    if (peer->from < peer->to) return start_send(SEND_OWED, slot, 0, peer->flight + peer->from, peer->to - peer->from, 0);
    if (!peer->ended && !peer->receiving) receive(slot);
    if (!peer->ended) return;
  }
  if (peer->receiving) return cancel_receive(slot);
  if (!peer->cancelling) io_uring_prep_close_direct(entry(CLOSE, slot, 0), slot);
}

static void handle_receive(int slot, int result, unsigned flags) {
  struct peer *peer = &peers[slot];
  unsigned buffer = flags >> IORING_CQE_BUFFER_SHIFT;
  peer->receiving = !!(flags & IORING_CQE_F_MORE);
  if (0 < result && !peer->sending && !peer->lost) {
    lengths[buffer] = result;
    start_send(SEND, slot, buffer, buffers[buffer], result, MSG_DONTWAIT);
  } else if (0 < result) {
    if (!peer->lost) owe(peer, buffers[buffer], result);
    give_back(buffer);
    if (peer->receiving && OWED_MAX <= peer->n) cancel_receive(slot);
  } else if (result == -ENOBUFS) {
    peer->receiving = 1;
    parked[parked_n++] = slot;
  } else if (result != -ECANCELED) {
    *(result == 0 ? &peer->ended : &peer->lost) = 1;
  }
  if (!peer->receiving) settle(slot);
}

static void handle_send(int slot, unsigned buffer, int result, int from_pool) {
  struct peer *peer = &peers[slot];
  peer->sending = 0;
  if (result == -EAGAIN || result == -EINTR) result = 0;
  if (result < 0) {
    peer->lost = 1;
  } else if (!from_pool) {
    peer->from += result;
  } else if ((unsigned)result < lengths[buffer]) {
    peer->from = 0, peer->to = lengths[buffer] - result;
    if (!(peer->flight = malloc(peer->to))) check(-ENOMEM, "malloc");
    memcpy(peer->flight, buffers[buffer] + result, peer->to);
  }
  if (from_pool) give_back(buffer);
  if (peer->flight || peer->n || peer->ended || peer->lost || !peer->receiving) settle(slot);
}

static void handle(struct io_uring_cqe *cqe) {
  int slot = (int)cqe->user_data, result = cqe->res;
  unsigned buffer = cqe->user_data >> 32 & 0xffff;
  switch ((enum op)(cqe->user_data >> 56)) {
    case RECEIVE: return handle_receive(slot, result, cqe->flags);
    case SEND: return handle_send(slot, buffer, result, 1);
    case SEND_OWED: return handle_send(slot, buffer, result, 0);
    case ACCEPT:
      accepting = 0;
      if (0 <= result) taken++, receive(result);
      // At a limit of the system's the queue stays full and would wake us for ever: until a connection closes.
      if (result != -ENFILE && result != -ENOMEM && result != -ENOBUFS) accept_next();
      return;
    case CANCEL:
      peers[slot].cancelling = 0;
      if (!peers[slot].receiving) settle(slot);
      return;
    case CLOSE:
      free(peers[slot].flight), free(peers[slot].owed);
      peers[slot] = (struct peer){0}, taken--;
      accept_next();
  }
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: %s PORT\n", argv[0]), 2;
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  slots = limit.rlim_cur < SLOTS_MAX ? (int)limit.rlim_cur : SLOTS_MAX;

  int one = 1;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // inherited by accepted sockets
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) check(-errno, "listen");

  unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
  struct io_uring_params params = {.cq_entries = CQ, .flags = flags};
  check(io_uring_queue_init_params(SQ, &ring, &params), "io_uring_setup");
  check(io_uring_register_files_sparse(&ring, slots), "direct descriptors");
  io_uring_register_ring_fd(&ring);
  struct io_uring_buf_reg reg = {.ring_addr = (unsigned long)pool, .ring_entries = BUFFERS};
  check(io_uring_register_buf_ring(&ring, &reg, 0), "buffer ring");
  for (unsigned buffer = 0; buffer < BUFFERS; buffer++) give_back(buffer);

  accept_next();
  for (;;) {
    int result = io_uring_submit_and_wait(&ring, 1);
    if (result != -EINTR && result != -EAGAIN && result != -EBUSY) check(result, "io_uring_enter");
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&ring, head, cqe) handle(cqe), n++;
    io_uring_cq_advance(&ring, n);
    // A send holds its buffer for no longer than a turn, so there are some again soon.
    while (parked_n) {
      peers[parked[--parked_n]].receiving = 0;
      settle(parked[parked_n]);
    }
  }
}
