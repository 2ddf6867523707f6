// Loads a key/value server over connections that stay, for scripts/bench. Prints operations, seconds
// and the 50th and 99th percentile of latency in microseconds.
//   rpc_load PROTOCOL PORT SECONDS CONNECTIONS DEPTH GETS BYTES
// PROTOCOL: xml (XML-RPC), json (JSON-RPC behind a length of 4 bytes) or resp (Redis). DEPTH requests are
// under way on each connection, GETS in a hundred of them read, the others set; values have BYTES bytes,
// and there are 1000 keys. GETS -1: add two numbers (json).
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { KEYS = 1000, MAX_CONNECTIONS = 1024, MAX_DEPTH = 64, MAX_VALUE = 65536, BUFFER = 1 << 20, MAX_US = 1 << 20 };

// One connection: what came of replies, and when the requests under way were sent, in a ring.
struct peer {
    int fd, length, first, count;
    char *in;
    double sent[MAX_DEPTH];
};

static char value[MAX_VALUE + 1], out[MAX_DEPTH * (MAX_VALUE + 1024)], again[BUFFER];
static const char *protocol;
static int port, depth, gets;
static uint64_t seed = 88172645463325252u;
static uint32_t latencies[MAX_US];

static void fail(const char *what) {
    fprintf(stderr, "rpc_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *)&at, sizeof at) < 0) fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static unsigned dice(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed >> 33;
}

// Writes a request, and returns how long it is.
static int request(char *to, int get, unsigned key) {
    static char body[MAX_VALUE + 1024];
    if (*protocol == 'r')
        return get ? sprintf(to, "*2\r\n$3\r\nGET\r\n$10\r\nkey:%06u\r\n", key)
                   : sprintf(to, "*3\r\n$3\r\nSET\r\n$10\r\nkey:%06u\r\n$%zu\r\n%s\r\n", key, strlen(value), value);
    if (*protocol == 'j') {
        int length = gets < 0 ? sprintf(body, "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[2,3],\"id\":%u}", key)
                     : get    ? sprintf(body, "{\"jsonrpc\":\"2.0\",\"method\":\"get\",\"params\":[\"key:%06u\"],\"id\":1}", key)
                              : sprintf(body, "{\"jsonrpc\":\"2.0\",\"method\":\"set\",\"params\":[\"key:%06u\",\"%s\"],\"id\":1}", key, value);
        uint32_t header = htonl(length);
        memcpy(to, &header, 4);
        memcpy(to + 4, body, length);
        return length + 4;
    }
    int length = sprintf(body, "<?xml version='1.0'?>\n<methodCall>\n<methodName>%s</methodName>\n<params>\n<param>\n<value><string>key:%06u"
                         "</string></value>\n</param>\n", get ? "get" : "set", key);
    if (!get) length += sprintf(body + length, "<param>\n<value><string>%s</string></value>\n</param>\n", value);
    length += sprintf(body + length, "</params>\n</methodCall>\n");
    return sprintf(to, "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", length, body);
}

static int wrong(const char *reply, int length) {
    fprintf(stderr, "rpc_load: a wrong reply: %.*s\n", length < 400 ? length : 400, reply);
    exit(1);
}

// How long the reply at the front is, 0 while it is not whole, and *closed whether the server ends with it.
static int reply(char *at, int length, int *closed) {
    at[length] = 0;
    if (*protocol == 'r') {
        char *end = strstr(at, "\r\n");
        if (!end) return 0;
        int whole = end + 2 - at + (*at == '$' ? atoi(at + 1) + 2 : 0);
        if (*at == '-' || !strncmp(at, "$-1", 3)) wrong(at, length);
        return whole <= length ? whole : 0;
    }
    if (*protocol == 'j') {
        uint32_t header;
        if (length < 4) return 0;
        memcpy(&header, at, 4);
        int whole = ntohl(header) + 4;
        if (whole > length) return 0;
        return memmem(at + 4, whole - 4, "\"result\"", 8) ? whole : wrong(at + 4, whole - 4);
    }
    char *body = strstr(at, "\r\n\r\n");
    if (!body) return 0;
    body += 4;
    char *size = strcasestr(at, "\r\nContent-Length:");
    if (!size || size > body) wrong(at, length);
    int whole = body - at + atoi(size + 17);
    if (whole > length) return 0;
    *closed = !strncmp(at, "HTTP/1.0", 8);
    return strncmp(at + 8, " 200", 4) || memmem(body, at + whole - body, "<fault>", 7) ? wrong(at, whole) : whole;
}

static void ask(struct peer *peer, int count) {
    int length = 0;
    for (int i = 0; i < count; i++) {
        int get = gets > 0 && (int)(dice() % 100) < gets;
        length += request(out + length, get, dice() % KEYS);
        peer->sent[(peer->first + peer->count++) % MAX_DEPTH] = now();
    }
    for (int done = 0; done < length;) {
        ssize_t sent = send(peer->fd, out + done, length - done, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) fail("send");
        done += sent > 0 ? sent : 0;
    }
}

// Takes what has come, asks again for each reply, and returns how many there were.
static int turn(struct peer *peer, int epoll, int index) {
    ssize_t came = recv(peer->fd, peer->in + peer->length, BUFFER - 1 - peer->length, MSG_DONTWAIT);
    if (came < 0 && errno == EAGAIN) return 0;
    if (came < 0 || (came == 0 && peer->count)) fail("recv");
    peer->length += came;
    int used = 0, done = 0, closed = 0, one;
    double t = now();
    while (!closed && peer->count && (one = reply(peer->in + used, peer->length - used, &closed))) {
        double us = (t - peer->sent[peer->first]) * 1e6;
        latencies[us < MAX_US - 1 ? (int)us : MAX_US - 1]++;
        peer->first = (peer->first + 1) % MAX_DEPTH;
        peer->count--;
        used += one;
        done++;
    }
    peer->length -= used;
    memmove(peer->in, peer->in + used, peer->length);
    if (closed) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
        close(peer->fd);
        peer->fd = dial();
        peer->count = peer->length = 0;
        epoll_ctl(epoll, EPOLL_CTL_ADD, peer->fd, &event);
        ask(peer, depth);
    } else if (done) {
        ask(peer, done);
    }
    return done;
}

// Sets every key, each over the same connection unless the server ends it.
static void fill(void) {
    int fd = -1;
    for (unsigned key = 0; key < KEYS; key++) {
        int length = request(out, 0, key), came = 0, closed = 0;
        if (fd < 0) fd = dial();
        if (send(fd, out, length, MSG_NOSIGNAL) != length) fail("send");
        do {
            ssize_t more = recv(fd, again + came, BUFFER - 1 - came, 0);
            if (more <= 0) fail("recv");
            came += more;
        } while (!reply(again, came, &closed));
        if (closed) {
            close(fd);
            fd = -1;
        }
    }
    if (fd >= 0) close(fd);
}

static double percentile(double part, double operations) {
    double seen = 0;
    for (int us = 0; us < MAX_US; us++)
        if ((seen += latencies[us]) >= part * operations) return us;
    return 0;
}

int main(int argc, char **argv) {
    static struct peer peers[MAX_CONNECTIONS];
    if (argc != 8) exit(64);
    protocol = argv[1];
    port = atoi(argv[2]);
    double seconds = atof(argv[3]), operations = 0;
    int connections = atoi(argv[4]), bytes = atoi(argv[7]), epoll = epoll_create1(0);
    depth = atoi(argv[5]);
    gets = atoi(argv[6]);
    if (connections > MAX_CONNECTIONS || depth > MAX_DEPTH || bytes > MAX_VALUE) exit(64);
    for (int i = 0; i < bytes; i++) value[i] = 'a' + i % 26;
    if (gets >= 0) fill();
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        peers[i].fd = dial();
        peers[i].in = malloc(BUFFER);
        epoll_ctl(epoll, EPOLL_CTL_ADD, peers[i].fd, &event);
        ask(&peers[i], depth);
    }
    double begin = now(), t;
    while ((t = now()) < begin + seconds) {
        struct epoll_event events[256];
        // It never sleeps, so that waking it costs nothing of the server's time.
        int ready = epoll_wait(epoll, events, 256, 0);
        for (int i = 0; i < ready; i++) operations += turn(&peers[events[i].data.u32], epoll, events[i].data.u32);
    }
    printf("%.0f %f %.0f %.0f\n", operations, t - begin, percentile(0.5, operations), percentile(0.99, operations));
}
