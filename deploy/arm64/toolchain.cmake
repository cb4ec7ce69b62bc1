# Debian's cross compiler, and the libraries that fetch_sysroot.sh unpacked into
# QK_ARM64_SYSROOT. The C library is the compiler's own.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES QK_ARM64_SYSROOT)
set(CMAKE_FIND_ROOT_PATH ${QK_ARM64_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR}
    ${QK_ARM64_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${QK_ARM64_SYSROOT})
# What every target needs from there, among it OpenSSL's per-architecture part.
set(CMAKE_CXX_STANDARD_INCLUDE_DIRECTORIES
    ${QK_ARM64_SYSROOT}/usr/include
    ${QK_ARM64_SYSROOT}/usr/include/aarch64-linux-gnu)
