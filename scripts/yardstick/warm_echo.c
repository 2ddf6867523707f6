/* The load for fd-broker's warm programs (docs/protocols/warm.md): what a message brings is echoed to its
   end, one connection after the other, and its number is the answer.
   Its broker is on descriptor 0. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE = 4096, BUFFER = 64 * 1024 };

static char buffer[BUFFER];

static void echo(int fd) {
    ssize_t length;
    while ((length = recv(fd, buffer, sizeof buffer, 0)) > 0)
        if (send(fd, buffer, length, MSG_NOSIGNAL) != length) break;
    close(fd);
}

int main(void) {
    for (;;) {
        char message[MESSAGE];
        union {
            char bytes[CMSG_SPACE(sizeof(int))];
            struct cmsghdr align;
        } control;
        struct iovec data = {message, sizeof message - 1};
        struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1,
                                .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        ssize_t length = recvmsg(0, &header, MSG_CMSG_CLOEXEC);
        struct cmsghdr *came = length > 0 ? CMSG_FIRSTHDR(&header) : NULL;
        int fd;
        if (!came) return 0;
        memcpy(&fd, CMSG_DATA(came), sizeof fd);
        echo(fd);
        /* The number ends with a NUL. */
        message[length] = 0;
        if (send(0, message, strlen(message), MSG_NOSIGNAL) < 0) return 0;
    }
}
