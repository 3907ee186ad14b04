/* The inner loop of the fan-out's load, as `_count_in_python` in load.py says it: reads all streams and counts a byte
   that each event holds once, and asks for another event whenever every stream has had one more. Linux only. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 512, BUFFER = 1 << 18, PATIENCE_MS = 30000 };

static int ask(int control, long count) {
    static const char bytes[1024];
    return count <= 0 || send(control, bytes, (size_t)count, MSG_NOSIGNAL) == count;
}

static long marks(const char *at, const char *end, int mark) {
    long count = 0;
    while ((at = memchr(at, mark, (size_t)(end - at)))) {
        count++;
        at++;
    }
    return count;
}

/* Returns the number of events that came everywhere, which is less than `rounds` when something went wrong. `reads`
   and `received` are added up. `toil`: look at everything once more before it is taken. */
long count_events(const int *streams, int count, int control, long in_flight, long rounds, int mark, int toil,
                  long *reads, long *received) {
    static char buffer[BUFFER];
    struct epoll_event ready[BATCH];
    long *seen = calloc((size_t)count, sizeof *seen), *at = calloc((size_t)rounds + 1, sizeof *at);
    long done = 0, asked = in_flight < rounds ? in_flight : rounds;
    int poller = epoll_create1(EPOLL_CLOEXEC), going = seen && at && poller >= 0 && in_flight <= 1024;
    for (int i = 0; going && i < count; i++) {
        struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = (unsigned)i};
        going = epoll_ctl(poller, EPOLL_CTL_ADD, streams[i], &wanted) == 0;
    }
    if (going) {
        at[0] = count;
        going = ask(control, asked);
    }
    while (going && done < rounds) {
        int found = epoll_wait(poller, ready, BATCH, PATIENCE_MS);
        if (found <= 0) {
            going = found < 0 && errno == EINTR;
            continue;
        }
        for (int i = 0; going && i < found; i++) {
            unsigned stream = ready[i].data.u32;
            if (toil)
                marks(buffer, buffer + recv(streams[stream], buffer, BUFFER, MSG_PEEK), mark);
            ssize_t size = recv(streams[stream], buffer, BUFFER, 0);
            if (size <= 0) {
                going = 0;
                break;
            }
            long events = marks(buffer, buffer + size, mark);
            *received += size;
            *reads += 1;
            if (seen[stream] + events > rounds) {
                going = 0;
                break;
            }
            at[seen[stream]]--;
            seen[stream] += events;
            at[seen[stream]]++;
        }
        while (going && done < rounds && !at[done])
            done++;
        long more = (done + in_flight < rounds ? done + in_flight : rounds) - asked;
        going = going && ask(control, more);
        asked += more > 0 ? more : 0;
    }
    if (poller >= 0)
        close(poller);
    free(seen);
    free(at);
    return done;
}
