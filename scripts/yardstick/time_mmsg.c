/* The yardstick for time-udp: the local time for any datagram, in batches, with no check at all.
   usage: time_mmsg PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, DATAGRAM = 512 };

static char received[BATCH][DATAGRAM], answer[64];

static size_t write_answer(void) {
    static time_t last;
    static size_t length;
    time_t now = time(NULL);
    if (now != last) {
        struct tm parts;
        last = now;
        length = strftime(answer, sizeof answer, "%a %b %e %H:%M:%S %Y", localtime_r(&now, &parts));
    }
    return length;
}

int main(int count, char **arguments) {
    if (count != 2) { fprintf(stderr, "usage: time_mmsg PORT\n"); return 64; }
    int s = socket(AF_INET, SOCK_DGRAM, 0), room = 4 << 20;
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(s, (void *)&address, sizeof address)) { perror("bind"); return 1; }
    static struct sockaddr_in peers[BATCH];
    static struct iovec in[BATCH], out[BATCH];
    static struct mmsghdr requests[BATCH], replies[BATCH];
    for (int i = 0; i < BATCH; i++) {
        in[i] = (struct iovec){received[i], DATAGRAM};
        out[i].iov_base = answer;
        requests[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_iov = &in[i], .msg_iovlen = 1};
        replies[i].msg_hdr = (struct msghdr){
            .msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &out[i], .msg_iovlen = 1};
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++) requests[i].msg_hdr.msg_namelen = sizeof peers[i];
        int n = recvmmsg(s, requests, BATCH, MSG_WAITFORONE, NULL);
        if (n <= 0) continue;
        size_t length = write_answer();
        for (int i = 0; i < n; i++) out[i].iov_len = length;
        for (int sent = 0; sent < n;) {
            int more = sendmmsg(s, replies + sent, (unsigned)(n - sent), 0);
            if (more <= 0) break;
            sent += more;
        }
    }
}
