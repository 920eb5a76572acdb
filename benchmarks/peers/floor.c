/* The floor in C: the bare send() of one frame to every socket, in a loop.
   argv: port, connections, bytes of the frame, rounds. A byte from the first client starts the rounds. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int port = atoi(argv[1]), connections = atoi(argv[2]), size = atoi(argv[3]), rounds = atoi(argv[4]), on = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return 1;
    int *clients = malloc(sizeof(int) * connections);
    for (int i = 0; i < connections; i++) {
        clients[i] = accept(listener, NULL, NULL);
        setsockopt(clients[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    const char *head = "42[\"notification\",";
    int body = size - 1;
    unsigned char *frame = malloc(size + 4);
    memset(frame, 'x', size + 4);
    frame[0] = 0x81; frame[1] = 0x7e; frame[2] = body >> 8; frame[3] = body & 255;
    memcpy(frame + 4, head, strlen(head));
    frame[4 + body - 1] = ']';
    char start;
    if (recv(clients[0], &start, 1, 0) != 1) return 1;
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < connections; i++)
            if (send(clients[i], frame, 4 + body, MSG_NOSIGNAL) != 4 + body) return 1;
    return recv(clients[0], &start, 1, 0) < 0;
}
