/* The yardstick for fd-broker: about the least that handing connections to another process can cost.
   One process accepts and passes each descriptor on in a message of its own; another one echoes. Nobody
   acknowledges anything, so a connection is lost with the one that had it.
   usage: fd_pass PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024, EVENTS = 256, BACKLOG = 4096 };

static char buffer[BUFFER];

/* Room for one descriptor beside a message. */
union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* The next descriptor, or -1 when none is there. */
static int receive(int channel) {
    char byte;
    union control control;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1,
                             .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t length = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length == 0) exit(0);
    struct cmsghdr *header = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    int descriptor = -1;
    if (header) memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
    return descriptor;
}

/* Echoes what is there; false when the connection is over. */
static int echo(int fd) {
    ssize_t length = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (length > 0) return send(fd, buffer, length, MSG_NOSIGNAL) == length;
    return length < 0 && errno == EAGAIN;
}

static void work(int channel) {
    int queue = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = channel}, events[EVENTS];
    if (queue < 0 || epoll_ctl(queue, EPOLL_CTL_ADD, channel, &event)) die("epoll");
    for (;;) {
        int count = epoll_wait(queue, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd != channel) {
                if (!echo(fd)) close(fd);
                continue;
            }
            while ((fd = receive(channel)) >= 0) {
                event.data.fd = fd;
                /* The first bytes are usually there already. */
                if (!echo(fd) || epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event)) close(fd);
            }
        }
    }
}

static void pass(int channel, int fd) {
    char byte = 0;
    union control control = {.bytes = {0}};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1,
                             .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(channel, &message, MSG_NOSIGNAL) < 0) die("sendmsg");
    close(fd);
}

int main(int count, char **arguments) {
    int one = 1, channel[2];
    if (count != 2) {
        fprintf(stderr, "usage: fd_pass PORT\n");
        return 64;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel)) die("socketpair");
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        close(channel[0]);
        work(channel[1]);
    }
    close(channel[1]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG)) die("listen");
    for (;;) {
        struct pollfd polled = {.fd = listener, .events = POLLIN};
        poll(&polled, 1, -1);
        for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) pass(channel[0], fd);
    }
}
