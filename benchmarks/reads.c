/* Counts what a process reads of the tables of lakes, by lake and table. Loaded with LD_PRELOAD into every process of a
 * job, so that Python, the JVM and the workers are counted alike, whichever library they read with (see meters.py).
 *
 * READS_ROOT: the folder with the lakes, its real path. READS_FOLDER: where every process keeps its own file of counters:
 * SLOTS x {name[64], bytes, opens}. The file is mapped, so a process that is killed leaves its counts, too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLOTS 64
#define FDS 65536

struct slot {
    char name[64];
    _Atomic uint64_t bytes, opens;
};

static struct slot *slots;
static _Atomic unsigned char slot_of[FDS]; /* 0: no file of a table */
static char root[4096];
static size_t root_length;
static atomic_flag busy = ATOMIC_FLAG_INIT;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("READS_FOLDER"), *below = getenv("READS_ROOT");
    if (!folder || !below) return;
    snprintf(root, sizeof root, "%s/", below);
    char path[4200];
    snprintf(path, sizeof path, "%s/%d-%lx", folder, (int)getpid(), (unsigned long)&path);
    REAL(open);
    int fd = real(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, SLOTS * sizeof(struct slot))) return;
    void *(*map)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
    void *found = map(0, SLOTS * sizeof(struct slot), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found == MAP_FAILED) return;
    slots = found;
    root_length = strlen(root);
}

/* The slot of "<lake>/<table>" or "<lake>/<table>/_delta_log" for a path below root; 0 where it is neither. */
static unsigned char find(const char *path) {
    const char *lake = path + root_length, *tables = strchr(lake, '/');
    if (!tables || strncmp(tables, "/tables/", 8)) return 0;
    const char *table = tables + 8, *end = strchr(table, '/');
    if (!end) return 0;
    char name[64];
    snprintf(name, sizeof name, "%.*s/%.*s%s", (int)(tables - lake), lake, (int)(end - table), table,
             strncmp(end, "/_delta_log/", 12) ? "" : "/_delta_log");
    unsigned char found = 0;
    while (atomic_flag_test_and_set(&busy)) {}
    for (int i = 1; i < SLOTS && !found; i++) {
        if (!slots[i].name[0]) strcpy(slots[i].name, name);
        if (!strcmp(slots[i].name, name)) found = (unsigned char)i;
    }
    atomic_flag_clear(&busy);
    return found;
}

static int opened(int fd) {
    if (!slots || fd < 0 || fd >= FDS) return fd;
    char link[64], path[4200];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    unsigned char slot = strncmp(path, root, root_length) ? 0 : find(path);
    if (slot) {
        struct stat status;
        if (fstat(fd, &status) || !S_ISREG(status.st_mode)) slot = 0;
        else slots[slot].opens++;
    }
    slot_of[fd] = slot;
    return fd;
}

static ssize_t counted(int fd, ssize_t bytes) {
    if (bytes > 0 && slots && fd >= 0 && fd < FDS && slot_of[fd]) slots[slot_of[fd]].bytes += (uint64_t)bytes;
    return bytes;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest); \
        return opened(real(path, flags, mode)); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest); \
        return opened(real(folder, path, flags, mode)); \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FDS) slot_of[fd] = 0;
    return real(fd);
}

ssize_t read(int fd, void *to, size_t count) {
    REAL(read);
    return counted(fd, real(fd, to, count));
}

ssize_t pread(int fd, void *to, size_t count, off_t at) {
    REAL(pread);
    return counted(fd, real(fd, to, count, at));
}

ssize_t pread64(int fd, void *to, size_t count, off64_t at) {
    REAL(pread64);
    return counted(fd, real(fd, to, count, at));
}

ssize_t readv(int fd, const struct iovec *to, int count) {
    REAL(readv);
    return counted(fd, real(fd, to, count));
}

ssize_t preadv(int fd, const struct iovec *to, int count, off_t at) {
    REAL(preadv);
    return counted(fd, real(fd, to, count, at));
}

ssize_t preadv64(int fd, const struct iovec *to, int count, off64_t at) {
    REAL(preadv64);
    return counted(fd, real(fd, to, count, at));
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t at) {
    REAL(mmap);
    counted(fd, (ssize_t)length);
    return real(address, length, protection, flags, fd, at);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t at) {
    REAL(mmap64);
    counted(fd, (ssize_t)length);
    return real(address, length, protection, flags, fd, at);
}
