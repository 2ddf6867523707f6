// Loads a stream server, for scripts/bench. Prints operations (messages, or megabytes) and seconds.
//   stream_load ping PORT SECONDS CONNECTIONS SIZE   messages of Python's connections, one under way each
//   stream_load recv PORT                            takes bytes up to the end
//   stream_load send PORT BYTES                      an array for array-sink, up to its receipt
#include <arpa/inet.h>
#include <endian.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 128 << 10, MAX_CONNECTIONS = 1024 };
static char out[1 << 20], in[1 << 20];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *)&at, sizeof at) < 0) fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static double ping(int port, double seconds, int connections, int size) {
    int epoll = epoll_create1(0), total = size + 4;
    int fds[MAX_CONNECTIONS], got[MAX_CONNECTIONS] = {0};
    // Below 256 bytes Python would write them in another way.
    if (connections > MAX_CONNECTIONS || size < 300 || total > (int)sizeof out) exit(64);
    // As Python sends a bytes object of size - 18 bytes: a pickle of protocol 4 in its frame.
    uint32_t header = htonl(size), bytes = htole32(size - 18);
    uint64_t frame = htole64(size - 11);
    memcpy(out, &header, sizeof header);
    memcpy(out + 4, "\x80\x04\x95", 3);
    memcpy(out + 7, &frame, sizeof frame);
    out[15] = 'B';
    memcpy(out + 16, &bytes, sizeof bytes);
    memcpy(out + total - 2, "\x94.", 2);
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        fds[i] = dial(port);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
        if (send(fds[i], out, total, 0) != total) fail("send");
    }
    double operations = 0, end = now() + seconds;
    while (now() < end) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            int at = events[i].data.u32;
            long length = recv(fds[at], in, sizeof in, 0);
            if (length <= 0) fail("recv");
            if ((got[at] += length) < total) continue;
            got[at] = 0;
            operations++;
            if (send(fds[at], out, total, 0) != total) fail("send");
        }
    }
    return operations;
}

static double receive(int port) {
    int fd = dial(port);
    double bytes = 0;
    for (long length; (length = recv(fd, in, PIECE, 0)) > 0;) bytes += length;
    return bytes / 1e6;
}

static double deliver(int port, uint64_t bytes) {
    int fd = dial(port);
    uint64_t size = htobe64(bytes);
    if (send(fd, &size, sizeof size, 0) != sizeof size) fail("send");
    for (uint64_t left = bytes; left > 0;) {
        long sent = send(fd, out, left < PIECE ? left : PIECE, 0);
        if (sent < 0) fail("send");
        left -= sent;
    }
    unsigned char receipt[12];
    if (recv(fd, receipt, sizeof receipt, MSG_WAITALL) != sizeof receipt || receipt[0] == 255) fail("receipt");
    return bytes / 1e6;
}

int main(int count, char **arguments) {
    double operations, start = now();
    if (count == 6 && !strcmp(arguments[1], "ping"))
        operations = ping(atoi(arguments[2]), atof(arguments[3]), atoi(arguments[4]), atoi(arguments[5]));
    else if (count == 3 && !strcmp(arguments[1], "recv"))
        operations = receive(atoi(arguments[2]));
    else if (count == 4 && !strcmp(arguments[1], "send"))
        operations = deliver(atoi(arguments[2]), strtoull(arguments[3], NULL, 10));
    else
        return 64;
    printf("%.3f %.6f\n", operations, now() - start);
    return 0;
}
