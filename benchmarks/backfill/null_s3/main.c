/* null_s3 LATENCY_MS [AUTHORITY_FILE]
   Listens on a free port of the loopback, prints it, and ends with its standard input. Each answer leaves LATENCY_MS after
   the end of its request. With AUTHORITY_FILE it speaks TLS. */
#define _GNU_SOURCE
#include "null_s3.h"

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
#include <sys/timerfd.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

#define CONNECTIONS 16384
#define HEAD_ROOM 65536

enum state { HEAD, BODY, CHUNK_SIZE, CHUNK, TRAILERS, ANSWERING };

struct connection {
    int fd, wants_to_write;
    unsigned long long generation; /* descriptors are used again; a late answer must not reach another client */
    enum state state;
    long long left; /* of the body or the chunk */
    char in[HEAD_ROOM];
    size_t used;
    struct request request;
    struct text out;
    size_t sent;
#ifdef WITH_TLS
    SSL *ssl;
#endif
};

struct due {
    struct timespec when;
    int fd, is_continue;
    unsigned long long generation;
};

static struct connection *connections[CONNECTIONS];
static struct due *queue;
static size_t queue_first, queue_last, queue_room;
static struct ssl_ctx_st *tls;
static long latency_ns;
static int epoll, timer;
static char dropped[1 << 20];

static void watch(int fd, unsigned events, int operation)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll, operation, fd, &event);
}

static void close_connection(struct connection *connection)
{
    connections[connection->fd] = NULL;
#ifdef WITH_TLS
    SSL_free(connection->ssl);
#endif
    close(connection->fd);
    free(connection->out.bytes);
    free(connection);
}

/* -- bytes in and out: > 0 moved, 0 the end, -1 later -------------------------------------------------------------- */

#ifdef WITH_TLS
static ssize_t of_tls(SSL *ssl, int result)
{
    int error = result > 0 ? 0 : SSL_get_error(ssl, result);
    return result > 0 ? result : error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? -1 : 0;
}
#endif

static ssize_t of_socket(ssize_t result) { return result >= 0 ? result : errno == EAGAIN || errno == EINTR ? -1 : 0; }

/* drop: what is read is of no interest, so the kernel need not copy it. */
static ssize_t read_some(struct connection *connection, char *to, size_t room, int drop)
{
#ifdef WITH_TLS
    if (connection->ssl)
        return of_tls(connection->ssl, SSL_read(connection->ssl, to, (int)room));
#endif
    return of_socket(recv(connection->fd, to, room, drop ? MSG_TRUNC : 0));
}

static ssize_t write_some(struct connection *connection, const char *from, size_t count)
{
#ifdef WITH_TLS
    if (connection->ssl)
        return of_tls(connection->ssl, SSL_write(connection->ssl, from, (int)count));
#endif
    return of_socket(send(connection->fd, from, count, MSG_NOSIGNAL));
}

/* 0: the connection is broken. */
static int flush(struct connection *connection)
{
    struct text *out = &connection->out;
    while (connection->sent < out->used) {
        size_t count = out->used - connection->sent;
        ssize_t moved = write_some(connection, out->bytes + connection->sent, count < 1 << 30 ? count : 1 << 30);
        if (moved == 0)
            return 0;
        if (moved < 0) {
            connection->wants_to_write = 1;
            watch(connection->fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return 1;
        }
        connection->sent += (size_t)moved;
    }
    connection->sent = out->used = 0;
    if (connection->wants_to_write) {
        connection->wants_to_write = 0;
        watch(connection->fd, EPOLLIN, EPOLL_CTL_MOD);
    }
    return 1;
}

/* -- answers, now or later ----------------------------------------------------------------------------------------- */

static int send_answer(struct connection *connection, int is_continue)
{
    if (is_continue) {
        text_add(&connection->out, "HTTP/1.1 100 Continue\r\n\r\n");
    } else {
        answer(&connection->request, &connection->out);
        connection->state = HEAD;
    }
    return flush(connection);
}

static void set_timer(void)
{
    struct itimerspec setting = {0};
    if (queue_first < queue_last)
        setting.it_value = queue[queue_first].when;
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &setting, NULL);
}

static int answer_after_latency(struct connection *connection, int is_continue)
{
    if (!is_continue)
        connection->state = ANSWERING;
    if (latency_ns == 0)
        return send_answer(connection, is_continue);
    if (queue_first == queue_last)
        queue_first = queue_last = 0;
    if (queue_last == queue_room) {
        queue_room = queue_room ? queue_room * 2 : 1024;
        queue = realloc(queue, queue_room * sizeof *queue);
        if (!queue)
            abort();
    }
    struct due *due = &queue[queue_last++];
    clock_gettime(CLOCK_MONOTONIC, &due->when);
    due->when.tv_nsec += latency_ns;
    due->when.tv_sec += due->when.tv_nsec / 1000000000;
    due->when.tv_nsec %= 1000000000;
    due->fd = connection->fd;
    due->generation = connection->generation;
    due->is_continue = is_continue;
    if (queue_last - queue_first == 1)
        set_timer();
    return 1;
}

static int is_past(const struct timespec *when)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return when->tv_sec < now.tv_sec || (when->tv_sec == now.tv_sec && when->tv_nsec <= now.tv_nsec);
}

static void send_what_is_due(void)
{
    for (; queue_first < queue_last && is_past(&queue[queue_first].when); queue_first++) {
        struct due *due = &queue[queue_first];
        struct connection *connection = connections[due->fd];
        if (connection && connection->generation == due->generation && !send_answer(connection, due->is_continue))
            close_connection(connection);
    }
    set_timer();
}

/* -- requests -------------------------------------------------------------------------------------------------------- */

static const char *const KEPT[] = {"content-type:",        "cache-control:", "content-encoding:",
                                   "content-disposition:", "x-amz-meta-",    "expires:"};

static void copy_value(char *to, size_t room, const char *value, size_t length)
{
    snprintf(to, room, "%.*s", (int)length, value);
}

static void read_header(struct connection *connection, const char *line, size_t length, int *expects)
{
    struct request *request = &connection->request;
    const char *value = memchr(line, ':', length);
    if (!value)
        return;
    for (value++; *value == ' ';)
        value++;
    size_t value_length = length - (size_t)(value - line);
    if (strncasecmp(line, "content-length:", 15) == 0)
        connection->left = atoll(value);
    else if (strncasecmp(line, "x-amz-decoded-content-length:", 29) == 0)
        request->size = atoll(value);
    else if (strncasecmp(line, "transfer-encoding:", 18) == 0)
        connection->state = CHUNK_SIZE;
    else if (strncasecmp(line, "expect:", 7) == 0)
        *expects = 1;
    else if (strncasecmp(line, "if-none-match:", 14) == 0)
        copy_value(request->if_none_match, sizeof request->if_none_match, value, value_length);
    else if (strncasecmp(line, "if-match:", 9) == 0)
        copy_value(request->if_match, sizeof request->if_match, value, value_length);
    else if (strncasecmp(line, "x-amz-copy-source:", 18) == 0)
        request->is_copy = 1;
    for (size_t number = 0; number < sizeof KEPT / sizeof *KEPT; number++) {
        size_t used = strlen(request->headers);
        if (strncasecmp(line, KEPT[number], strlen(KEPT[number])) == 0 && used + length + 3 < sizeof request->headers)
            snprintf(request->headers + used, sizeof request->headers - used, "%.*s\r\n", (int)length, line);
    }
}

/* The head is in[0] to in[length], with the empty line. Returns 0 for what is no request. */
static int read_head(struct connection *connection, size_t length)
{
    struct request *request = &connection->request;
    int expects = 0;
    char *target = memchr(connection->in, ' ', length), *end = target ? memchr(target + 1, ' ', length) : NULL;
    if (!end || target[1] != '/')
        return 0;
    memset(request, 0, sizeof *request);
    request->size = -1;
    connection->left = 0;
    connection->state = BODY;
    copy_value(request->method, sizeof request->method, connection->in, (size_t)(target - connection->in));
    size_t target_length = (size_t)(end - target - 2);
    char *query = memchr(target + 2, '?', target_length);
    size_t path_length = query ? (size_t)(query - target - 2) : target_length;
    copy_value(request->name, sizeof request->name, target + 2, path_length);
    url_decode(request->name);
    if (request->name[0] && request->name[strlen(request->name) - 1] == '/' && !strchr(request->name, '/')[1])
        *strchr(request->name, '/') = 0; /* "/bucket/" is the bucket too */
    if (query)
        copy_value(request->query, sizeof request->query, query + 1, target_length - path_length - 1);

    char *line = memmem(connection->in, length, "\r\n", 2);
    for (line += 2; line < connection->in + length - 2;) {
        char *next = memmem(line, (size_t)(connection->in + length - line), "\r\n", 2);
        read_header(connection, line, (size_t)(next - line), &expects);
        line = next + 2;
    }
    if (request->size < 0)
        request->size = connection->left;
    memmove(connection->in, connection->in + length, connection->used - length);
    connection->used -= length;
    return !(expects && connection->used == 0) || answer_after_latency(connection, 1);
}

/* A line of the framing of chunks; NULL: not all of it is there yet. The caller frees it. */
static char *take_line(struct connection *connection)
{
    char *end = memmem(connection->in, connection->used, "\r\n", 2);
    if (!end)
        return NULL;
    char *line = strndup(connection->in, (size_t)(end - connection->in));
    connection->used -= (size_t)(end + 2 - connection->in);
    memmove(connection->in, end + 2, connection->used);
    return line;
}

static void drop_buffered(struct connection *connection)
{
    size_t count = connection->left < (long long)connection->used ? (size_t)connection->left : connection->used;
    memmove(connection->in, connection->in + count, connection->used - count);
    connection->used -= count;
    connection->left -= (long long)count;
}

/* As far as what was read goes. Returns 0 where the connection is to be closed. */
static int go_on(struct connection *connection)
{
    for (;;) {
        char *end, *line;
        switch (connection->state) {
        case HEAD:
            if (!(end = memmem(connection->in, connection->used, "\r\n\r\n", 4)))
                return connection->used < sizeof connection->in;
            if (!read_head(connection, (size_t)(end + 4 - connection->in)))
                return 0;
            break;
        case BODY:
        case CHUNK:
            drop_buffered(connection);
            if (connection->left > 0)
                return 1;
            if (connection->state == CHUNK)
                connection->state = CHUNK_SIZE;
            else
                return answer_after_latency(connection, 0);
            break;
        case CHUNK_SIZE:
        case TRAILERS:
            if (!(line = take_line(connection)))
                return connection->used < sizeof connection->in;
            int was_last = connection->state == TRAILERS && !*line;
            if (connection->state == CHUNK_SIZE) {
                connection->left = strtoll(line, NULL, 16);
                connection->state = connection->left ? CHUNK : TRAILERS;
                connection->left += connection->left ? 2 : 0; /* its line end */
            }
            free(line);
            if (was_last)
                return answer_after_latency(connection, 0);
            break;
        case ANSWERING:
            return connection->used == 0; /* no client sends a request before it has the answer to the last */
        }
    }
}

static void on_readable(struct connection *connection)
{
    for (;;) {
        int drop = (connection->state == BODY || connection->state == CHUNK) && connection->used == 0;
        size_t room = sizeof connection->in - connection->used;
        if (drop)
            room = connection->left < (long long)sizeof dropped ? (size_t)connection->left : sizeof dropped;
        ssize_t count = read_some(connection, drop ? dropped : connection->in + connection->used, room, drop);
        if (count < 0)
            return;
        if (drop)
            connection->left -= count;
        else
            connection->used += (size_t)count;
        if (count == 0 || !go_on(connection)) {
            close_connection(connection);
            return;
        }
    }
}

static void on_client(int listener)
{
    static unsigned long long generation;
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= CONNECTIONS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *connection = calloc(1, sizeof *connection);
        connection->fd = fd;
        connection->generation = ++generation;
#ifdef WITH_TLS
        if (tls) {
            connection->ssl = SSL_new(tls);
            SSL_set_fd(connection->ssl, fd);
            SSL_set_accept_state(connection->ssl);
        }
#endif
        connections[fd] = connection;
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static int listen_on_a_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024) ||
        getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("null_s3");
        exit(1);
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **arguments)
{
    struct rlimit files;
    latency_ns = count > 1 ? (long)(atof(arguments[1]) * 1e6) : 0;
    if (count > 2 && !(tls = tls_context(arguments[2]))) {
        fprintf(stderr, "null_s3: no TLS: compiled without OpenSSL, or %s cannot be written\n", arguments[2]);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < CONNECTIONS ? files.rlim_max : CONNECTIONS;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listener = listen_on_a_free_port();
    watch(listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(timer, EPOLLIN, EPOLL_CTL_ADD);
    watch(STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int number = 0; number < ready; number++) {
            int fd = events[number].data.fd;
            unsigned long long expirations;
            if (fd == listener) {
                on_client(listener);
            } else if (fd == timer) {
                if (read(timer, &expirations, sizeof expirations) > 0)
                    send_what_is_due();
            } else if (fd == STDIN_FILENO) {
                return 0;
            } else if (connections[fd]) {
                struct connection *connection = connections[fd];
                if ((events[number].events & EPOLLOUT) && connection->wants_to_write && !flush(connection))
                    close_connection(connection);
                else if (events[number].events & ~EPOLLOUT)
                    on_readable(connection);
            }
        }
    }
}
