/* A disk that a test can fill, make read-only, break, or cut off from power, for the program that preloads it.

   It covers the file that DISK_FILE names and those whose names begin with that (a WAL, a journal). The folder
   DISK_DURABLE holds what such a file would contain after a power loss, which is what was synced; a file `.named` there
   means that a sync of the directory made the name durable, too. As on Linux, a failed sync doesn't write its blocks and
   marks them as written: only a block that is written again gets another chance. The file that DISK_FAULT names holds
   the fault as a number. It is mapped, so that faults come and go while the program runs. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum fault { WORKS, FULL, READ_ONLY, SYNC_FAILS, SYNC_LIES };

#define BLOCK 4096
#define BLOCKS (1 << 16)
#define FILES 8

static struct file {
    char name[64];
    unsigned char is_dirty[BLOCKS];
} files[FILES];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const volatile long long *fault;
static char prefix[512], directory[512];

/* A test whose fault doesn't occur proves nothing. */
static void require(int holds) {
    if (!holds) {
        abort();
    }
}

__attribute__((constructor)) static void initialize(void) {
    const char *file = getenv("DISK_FILE"), *path = getenv("DISK_FAULT");
    require(file && path && getenv("DISK_DURABLE") && strlen(file) < sizeof prefix);
    /* As the kernel shows it in /proc. */
    strcpy(directory, file);
    *strrchr(directory, '/') = 0;
    char *real = realpath(directory, NULL);
    require(real != NULL);
    require(snprintf(prefix, sizeof prefix, "%s%s", real, strrchr(file, '/')) < (int)sizeof prefix);
    strcpy(directory, real);
    free(real);
    int mapped = open(path, O_RDONLY | O_CLOEXEC);
    fault = mmap(NULL, sizeof *fault, PROT_READ, MAP_SHARED, mapped, 0);
    require(fault != MAP_FAILED);
    close(mapped);
}

/* The path of an open file; the kernel adds " (deleted)" to that of a removed one. */
static void path_of(int fd, char *path, size_t size) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
}

static int is_ours(const char *path) {
    return prefix[0] && !strncmp(path, prefix, strlen(prefix));
}

/* Removed files, and those that each start creates again, have nothing to lose. */
static int survives(const char *path) {
    const char *end = strrchr(path, '-');
    return !strstr(path, " (deleted)") && !(end && (!strcmp(end, "-shm") || !strcmp(end, "-lock")));
}

static struct file *tracked(const char *path) {
    const char *name = strrchr(path, '/') + 1;
    for (struct file *file = files; file < files + FILES; file++) {
        if (!file->name[0]) {
            require(strlen(name) < sizeof file->name);
            strcpy(file->name, name);
        }
        if (!strcmp(file->name, name)) {
            return file;
        }
    }
    abort();
}

static off_t size_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_size;
}

static int durable(const char *name, const char *suffix, int flags) {
    char path[1024];
    require(snprintf(path, sizeof path, "%s/%s%s", getenv("DISK_DURABLE"), name, suffix) < (int)sizeof path);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}

/* The blocks that were written since the last sync reach the disk. */
static void persist_blocks(int fd, struct file *file) {
    off_t size = size_of(fd);
    require(size <= (off_t)BLOCK * BLOCKS);
    int copy = durable(file->name, "", O_WRONLY | O_CREAT);
    require(copy >= 0);
    for (off_t at = 0; at < size; at += BLOCK) {
        if (file->is_dirty[at / BLOCK]) {
            char block[BLOCK];
            ssize_t length = pread(fd, block, BLOCK, at);
            require(length >= 0 && syscall(SYS_pwrite64, copy, block, length, at) == length);
        }
    }
    require(!syscall(SYS_ftruncate, copy, size));
    close(copy);
    memset(file->is_dirty, 0, sizeof file->is_dirty);
}

/* The names that are in the directory now reach the disk, and all others are removed from it. */
static void persist_names(void) {
    DIR *kept = opendir(getenv("DISK_DURABLE")), *now = opendir(directory);
    require(kept && now);
    for (struct dirent *entry; (entry = readdir(kept));) {
        char *suffix = strstr(entry->d_name, ".named"), path[1024];
        if (suffix) {
            snprintf(path, sizeof path, "%s/%.*s", directory, (int)(suffix - entry->d_name), entry->d_name);
            if (access(path, F_OK)) {
                unlinkat(dirfd(kept), entry->d_name, 0);
            }
        }
    }
    for (struct dirent *entry; (entry = readdir(now));) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (is_ours(path) && survives(path)) {
            close(durable(entry->d_name, "", O_WRONLY | O_CREAT));
            close(durable(entry->d_name, ".named", O_WRONLY | O_CREAT));
        }
    }
    closedir(kept);
    closedir(now);
}

static int sync_fd(int fd, long call) {
    char path[1024];
    path_of(fd, path, sizeof path);
    int is_names = prefix[0] && !strcmp(path, directory);
    if (!is_names && !(is_ours(path) && survives(path))) {
        return (int)syscall(call, fd);
    }
    int failed = 0;
    pthread_mutex_lock(&lock);
    if (*fault == SYNC_FAILS) {
        failed = 1;
        if (!is_names) {
            memset(tracked(path)->is_dirty, 0, BLOCKS);
        }
    } else if (*fault != SYNC_LIES) {
        is_names ? persist_names() : persist_blocks(fd, tracked(path));
    }
    pthread_mutex_unlock(&lock);
    if (failed) {
        errno = EIO;
    }
    return -failed;
}

int fsync(int fd) {
    return sync_fd(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return sync_fd(fd, SYS_fdatasync);
}

/* How many bytes of a write the disk accepts; 0 with errno set when it refuses. */
static size_t accepted_length(int fd, off_t at, size_t length) {
    char path[1024];
    path_of(fd, path, sizeof path);
    if (!is_ours(path)) {
        return length;
    }
    if (*fault == READ_ONLY) {
        errno = EROFS;
        return 0;
    }
    /* A file's last block is allocated as a whole. */
    off_t room = (size_of(fd) + BLOCK - 1) / BLOCK * BLOCK - at;
    if (*fault == FULL && (off_t)length > room) {
        length = room > 0 ? (size_t)room : 0;
        errno = ENOSPC;
    }
    if (survives(path) && length) {
        pthread_mutex_lock(&lock);
        require(at + (off_t)length <= (off_t)BLOCK * BLOCKS);
        size_t first = (size_t)at / BLOCK, last = ((size_t)at + length - 1) / BLOCK;
        memset(tracked(path)->is_dirty + first, 1, last - first + 1);
        pthread_mutex_unlock(&lock);
    }
    return length;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    size_t part = length ? accepted_length(fd, at, length) : 0;
    return length && !part ? -1 : syscall(SYS_pwrite64, fd, bytes, part, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    return pwrite64(fd, bytes, length, at);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    off_t at = fd > 2 ? lseek(fd, 0, SEEK_CUR) : -1;
    size_t part = length && at >= 0 ? accepted_length(fd, at, length) : length;
    return length && !part ? -1 : syscall(SYS_write, fd, bytes, part);
}

int ftruncate64(int fd, off64_t size) {
    char path[1024];
    path_of(fd, path, sizeof path);
    if (is_ours(path) && (*fault == READ_ONLY || (*fault == FULL && size > size_of(fd)))) {
        errno = *fault == FULL ? ENOSPC : EROFS;
        return -1;
    }
    return (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate(int fd, off_t size) {
    return ftruncate64(fd, size);
}

static int open_path(const char *path, int flags, mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (fault && is_ours(path) && writes && *fault == READ_ONLY) {
        errno = EROFS;
        return -1;
    }
    if (fault && is_ours(path) && (flags & O_CREAT) && *fault == FULL && access(path, F_OK)) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* Reads the mode even if the caller passed none; then it is not used. */
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return open_path(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
