// A library for LD_PRELOAD: one call on one file fails, as a broken disk or a
// table of descriptors that is full makes it fail.
//
//   FAIL_IO_FILE   the path, as the program gives it; pwrite: a folder, of
//   which
//                  all files are meant, with the path that the system gives it
//   FAIL_IO_CALL   open, read, mmap, write, or pwrite
//   FAIL_IO_ERRNO  the number
//   FAIL_IO_WHILE  fails only while this file exists; unset: always
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool Fails(const char* call) {
  const char* wanted = std::getenv("FAIL_IO_CALL");
  if (wanted == nullptr || std::strcmp(wanted, call) != 0) return false;
  const char* trigger = std::getenv("FAIL_IO_WHILE");
  return trigger == nullptr || access(trigger, F_OK) == 0;
}

int Fail() {
  errno = std::atoi(std::getenv("FAIL_IO_ERRNO"));
  return -1;
}

bool IsTheFile(int fd) {
  const char* path = std::getenv("FAIL_IO_FILE");
  struct stat wanted = {}, open_file = {};
  return path != nullptr && stat(path, &wanted) == 0 &&
         fstat(fd, &open_file) == 0 && wanted.st_dev == open_file.st_dev &&
         wanted.st_ino == open_file.st_ino;
}

bool IsInTheFolder(int fd) {
  const char* folder = std::getenv("FAIL_IO_FILE");
  char link[64], path[4096] = "";
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  return folder != nullptr && readlink(link, path, sizeof(path) - 1) > 0 &&
         std::strncmp(path, folder, std::strlen(folder)) == 0;
}

bool IsThePath(const char* path) {
  const char* wanted = std::getenv("FAIL_IO_FILE");
  return wanted != nullptr && std::strcmp(wanted, path) == 0;
}

mode_t ModeOf(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = ModeOf(flags, arguments);
  va_end(arguments);
  if (Fails("open") && IsThePath(path)) return Fail();
  return Next<int (*)(const char*, int, ...)>("open")(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = ModeOf(flags, arguments);
  va_end(arguments);
  if (Fails("open") && IsThePath(path)) return Fail();
  return Next<int (*)(const char*, int, ...)>("open64")(path, flags, mode);
}

ssize_t read(int fd, void* out, size_t size) {
  if (Fails("read") && IsTheFile(fd)) return Fail();
  return Next<ssize_t (*)(int, void*, size_t)>("read")(fd, out, size);
}

ssize_t write(int fd, const void* data, size_t size) {
  if (Fails("write") && IsTheFile(fd)) return Fail();
  return Next<ssize_t (*)(int, const void*, size_t)>("write")(fd, data, size);
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  if (Fails("pwrite") && IsInTheFolder(fd)) return Fail();
  return Next<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite")(
      fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  if (Fails("pwrite") && IsInTheFolder(fd)) return Fail();
  return Next<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64")(
      fd, data, size, offset);
}

void* mmap(void* at, size_t size, int protection, int flags, int fd,
           off_t offset) {
  if (fd >= 0 && Fails("mmap") && IsTheFile(fd)) {
    Fail();
    return MAP_FAILED;
  }
  return Next<void* (*)(void*, size_t, int, int, int, off_t)>("mmap")(
      at, size, protection, flags, fd, offset);
}

}  // extern "C"
