/* The bare send in C: what floor.py does, without Python. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536
static const char opened[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x12" "0{\"pingInterval\":0}";
static const char welcome[] = "\x81\x0e" "auth_success";
static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
static const char start[] = "\"notification\": ", end[] = ", \"ttl\": 0}";
static char request[1 << 20], frame[MOST];
static int clients[MOST], connections, listener;

static int take(void) {
    int sock = accept(listener, NULL, NULL), on = 1;
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return sock;
}

static void say(int sock, const char *text, size_t size) {
    if (send(sock, text, size, MSG_NOSIGNAL) != (ssize_t)size) exit(1);
}

int main(void) {
    int on = 1, sock;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return 1;
    ssize_t size;
    while ((size = recv(sock = take(), request, sizeof request, 0)) > 0 && !memcmp(request, "GET", 3)) {
        if (memmem(request, size, "/socket.io/", 11) && connections < MOST) {
            say(sock, opened, sizeof opened - 1);
            if (recv(sock, request, sizeof request, 0) <= 0) return 1;
            say(sock, welcome, sizeof welcome - 1);
            clients[connections++] = sock;
        } else {
            say(sock, ok, sizeof ok - 1);
            close(sock);
        }
    }
    struct pollfd publishers[2] = {{sock, POLLIN, 0}, {-1, POLLIN, 0}};
    for (int current = 0; size > 0; size = recv(publishers[current].fd, request, sizeof request, 0)) {
        while (memcmp(request + size - (sizeof end - 1), end, sizeof end - 1)) {
            ssize_t more = recv(publishers[current].fd, request + size, sizeof request - size, 0);
            if (more <= 0) return 1;
            size += more;
        }
        char *notification = (char *)memmem(request, size, start, sizeof start - 1) + sizeof start - 1;
        int length = request + size - (sizeof end - 1) - notification;
        int body = sprintf(frame + 4, "42[\"notification\",%.*s,\"1795384833960383\"]", length, notification);
        frame[0] = (char)0x81, frame[1] = 0x7e, frame[2] = (char)(body >> 8), frame[3] = (char)body;
        for (int i = 0; i < connections; i++) say(clients[i], frame, body + 4);
        say(publishers[current].fd, ok, sizeof ok - 1);
        if (publishers[1].fd < 0) publishers[1].fd = take();
        poll(publishers, 2, -1);
        current = publishers[!current].revents ? !current : current; /* the one that has posted; alternate if both have */
    }
    return 0;
}
