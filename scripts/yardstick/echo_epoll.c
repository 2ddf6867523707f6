/* The yardstick for echo-tcp: about the least a server can do per message with epoll.
   One thread, level-triggered, one shared read buffer; data is kept only for a peer that is slow.
   usage: echo_epoll PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, EVENTS = 512, ACCEPTS = 64 };

/* What a slow peer has not taken yet. */
struct kept {
    char *bytes;
    size_t length, taken;
};

static char buffer[BUFFER] __attribute__((aligned(4096)));
static struct kept *kept;
static size_t kept_size;
static int queue;

static void watch(int fd, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(queue, operation, fd, &event)) { perror("epoll_ctl"); exit(1); }
}

static void hang_up(int fd) {
    if ((size_t)fd < kept_size) {
        free(kept[fd].bytes);
        kept[fd].bytes = NULL;
    }
    close(fd);
}

static void keep(int fd, const char *bytes, size_t length) {
    if ((size_t)fd >= kept_size) {
        size_t size = (size_t)fd * 2 + 64;
        kept = realloc(kept, size * sizeof *kept);
        if (!kept) abort();
        memset(kept + kept_size, 0, (size - kept_size) * sizeof *kept);
        kept_size = size;
    }
    char *copy = malloc(length);
    if (!copy) abort();
    memcpy(copy, bytes, length);
    kept[fd] = (struct kept){copy, length, 0};
    watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
}

static void send_kept(int fd) {
    struct kept *k = &kept[fd];
    ssize_t sent = send(fd, k->bytes + k->taken, k->length - k->taken, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) { hang_up(fd); return; }
    if (sent > 0) k->taken += (size_t)sent;
    if (k->taken == k->length) {
        free(k->bytes);
        k->bytes = NULL;
        watch(fd, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void echo(int fd) {
    ssize_t length = recv(fd, buffer, BUFFER, 0);
    if (length < 0 && errno == EAGAIN) return;
    if (length <= 0) { hang_up(fd); return; }
    ssize_t sent = send(fd, buffer, (size_t)length, MSG_NOSIGNAL);
    if (sent == length) return;
    if (sent < 0 && errno != EAGAIN) { hang_up(fd); return; }
    if (sent < 0) sent = 0;
    keep(fd, buffer + sent, (size_t)(length - sent));
}

int main(int count, char **arguments) {
    if (count != 2) { fprintf(stderr, "usage: echo_epoll PORT\n"); return 64; }
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
        perror("listen");
        return 1;
    }
    queue = epoll_create1(0);
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(queue, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (events[i].events & EPOLLOUT) send_kept(fd);
                else echo(fd);
                continue;
            }
            for (int k = 0; k < ACCEPTS; k++) {
                int connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (connection < 0) break;
                watch(connection, EPOLL_CTL_ADD, EPOLLIN);
            }
        }
    }
}
