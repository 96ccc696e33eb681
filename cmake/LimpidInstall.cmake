# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts where, in three components:
#
#   client  the command line
#   server  the server, with LibTorch beside it
#   dev     the C++ client library: find_package(limpid), limpid::client
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# limpid_install_man(NAME SECTION COMPONENT): compressed, and without a time in
# it, so that packages made twice are the same.
find_program(LIMPID_GZIP gzip REQUIRED)
function(limpid_install_man name section component)
  set(page "${PROJECT_SOURCE_DIR}/docs/man/${name}.${section}")
  set(packed "${PROJECT_BINARY_DIR}/man/${name}.${section}.gz")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${page}")
  file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/man")
  execute_process(COMMAND "${LIMPID_GZIP}" -9nc "${page}"
                  OUTPUT_FILE "${packed}" COMMAND_ERROR_IS_FATAL ANY)
  install(FILES "${packed}" COMPONENT ${component}
          DESTINATION "${CMAKE_INSTALL_MANDIR}/man${section}")
endfunction()

install(TARGETS limpid_cli RUNTIME COMPONENT client)
# Scripts for completion come from the program itself.
install(CODE "
  set(shares \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}\")
  foreach(script bash:bash-completion/completions/limpid
                 zsh:zsh/vendor-completions/_limpid
                 fish:fish/vendor_completions.d/limpid.fish)
    string(REGEX MATCH \"^([a-z]+):((.*)/[^/]+)\$\" script \${script})
    file(MAKE_DIRECTORY \"\${shares}/\${CMAKE_MATCH_3}\")
    execute_process(COMMAND \"$<TARGET_FILE:limpid_cli>\" completion \${CMAKE_MATCH_1}
                    OUTPUT_FILE \"\${shares}/\${CMAKE_MATCH_2}\"
                    COMMAND_ERROR_IS_FATAL ANY)
  endforeach()" COMPONENT client)

# The library and what its headers and calls need; nothing of the server.
set(_dev_targets limpid_client limpid_proto limpid_googleapis
                 limpid_health_proto)
foreach(_target ${_dev_targets})
  string(REPLACE "limpid_" "" _name ${_target})
  set_target_properties(${_target} PROPERTIES EXPORT_NAME ${_name})
endforeach()
# A folder of its own: inside it headers have the names that they include each
# other by.
set(_include "${CMAKE_INSTALL_INCLUDEDIR}/limpid")
install(TARGETS ${_dev_targets} EXPORT limpid-targets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT dev
  INCLUDES DESTINATION "${_include}")
install(FILES
  client/client.h client/error_report.h client/explanation.h client/retry.h
  client/tensor_codec.h
  DESTINATION "${_include}/client" COMPONENT dev)
# Messages; the stubs of the services stay with the library.
install(DIRECTORY "${PROJECT_BINARY_DIR}/proto/gen/"
  DESTINATION "${_include}" COMPONENT dev
  FILES_MATCHING PATTERN "*.pb.h"
  PATTERN "*.grpc.pb.h" EXCLUDE
  PATTERN "config" EXCLUDE
  PATTERN "inference" EXCLUDE
  PATTERN "rpc" EXCLUDE
  PATTERN "grpc" EXCLUDE)
install(DIRECTORY proto/limpid/v1
  DESTINATION "${CMAKE_INSTALL_DATADIR}/limpid/proto/limpid" COMPONENT dev
  FILES_MATCHING PATTERN "*.proto")

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/limpid")
configure_package_config_file(cmake/limpid-config.cmake.in
  "${PROJECT_BINARY_DIR}/limpid-config.cmake"
  INSTALL_DESTINATION "${_package}"
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  "${PROJECT_BINARY_DIR}/limpid-config-version.cmake"
  COMPATIBILITY SameMinorVersion)
install(EXPORT limpid-targets NAMESPACE limpid::
  DESTINATION "${_package}" COMPONENT dev)
install(FILES
  "${PROJECT_BINARY_DIR}/limpid-config.cmake"
  "${PROJECT_BINARY_DIR}/limpid-config-version.cmake"
  DESTINATION "${_package}" COMPONENT dev)

# The server with the libraries that no Debian package has. A CUDA build would
# need 3 GB of them; packages are made from CPU builds.
if(NOT LIMPID_WITH_CUDA)
  set(LIMPID_PRIVATE_LIBDIR lib/limpid)
  set_target_properties(limpid_server PROPERTIES
    INSTALL_RPATH "$ORIGIN/../${LIMPID_PRIVATE_LIBDIR}")
  install(TARGETS limpid_server RUNTIME COMPONENT server)
  set(_private libc10.so libtorch_cpu.so libgomp.so.1)
  list(TRANSFORM _private PREPEND "${LIMPID_TORCH_ROOT}/lib/")
  foreach(_library libcudart.so.13 libcupti.so.13)
    file(GLOB _found "${LIMPID_SITE_PACKAGES}/nvidia/*/lib/${_library}")
    list(APPEND _private "${_found}")
  endforeach()
  install(FILES ${_private} DESTINATION "${LIMPID_PRIVATE_LIBDIR}"
          COMPONENT server)
  # They look for each other in the wheel's folders, too; here one folder is
  # all there is.
  install(CODE "
    find_program(LIMPID_STRIP strip REQUIRED)
    file(GLOB libraries \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${LIMPID_PRIVATE_LIBDIR}/*.so*\")
    foreach(library \${libraries})
      execute_process(COMMAND \${LIMPID_STRIP} --strip-unneeded \${library}
                      COMMAND_ERROR_IS_FATAL ANY)
    endforeach()" COMPONENT server)
  install(DIRECTORY models/ DESTINATION "${CMAKE_INSTALL_DATADIR}/limpid/models"
          COMPONENT server
          PATTERN "*.md" EXCLUDE PATTERN "samples" EXCLUDE)
  file(GLOB _licenses
       "${LIMPID_SITE_PACKAGES}/torch-*.dist-info/licenses/*")
  install(FILES deploy/example.config.json deploy/package/copyright
          ${_licenses}
          DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/limpid-server"
          COMPONENT server)
  limpid_install_man(limpid-server 8 server)
endif()
foreach(_component client dev)
  set(_package_client limpid-client)
  set(_package_dev liblimpid-dev)
  install(FILES deploy/package/copyright COMPONENT ${_component} DESTINATION
          "${CMAKE_INSTALL_DATADIR}/doc/${_package_${_component}}")
endforeach()
limpid_install_man(limpid 1 client)
