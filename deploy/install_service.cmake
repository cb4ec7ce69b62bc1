# Installs the systemd unit and the configuration that it names. The unit's
# paths are those of the prefix; a configuration that is there stays as it is.
# QK_DEPLOY is the folder of this file.
set(etc "${CMAKE_INSTALL_PREFIX}/etc")
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(etc "/etc")
endif()

file(READ "${QK_DEPLOY}/systemd/qkscoped.service" unit)
string(REPLACE "/usr/local/bin/" "${CMAKE_INSTALL_PREFIX}/bin/" unit "${unit}")
string(REPLACE " /etc/qkscope/" " ${etc}/qkscope/" unit "${unit}")
set(target "${CMAKE_INSTALL_PREFIX}/lib/systemd/system/qkscoped.service")
message(STATUS "Installing: $ENV{DESTDIR}${target}")
file(WRITE "$ENV{DESTDIR}${target}" "${unit}")
list(APPEND CMAKE_INSTALL_MANIFEST_FILES "${target}")

if(NOT EXISTS "$ENV{DESTDIR}${etc}/qkscope/qkscoped.conf")
  file(INSTALL "${QK_DEPLOY}/qkscoped.conf" DESTINATION "${etc}/qkscope")
endif()
