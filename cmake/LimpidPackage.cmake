# SPDX-License-Identifier: Apache-2.0
# Debian packages and a tarball, by `cpack`; scripts/package does it all.
if(LIMPID_WITH_CUDA)
  return()
endif()
set(CPACK_PACKAGE_VENDOR "The Limpid authors")
set(CPACK_PACKAGE_CONTACT "The Limpid authors <limpid@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_COMPONENTS_ALL client server debian dev)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_DIRECTORY "${PROJECT_BINARY_DIR}/packages")

# One tarball of everything, one package for each component.
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${LIMPID_TORCH_ROOT}/lib")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_DEBIAN_CLIENT_PACKAGE_NAME limpid-client)
set(CPACK_DEBIAN_CLIENT_PACKAGE_SECTION science)
set(CPACK_DEBIAN_CLIENT_DESCRIPTION
"The command line: asks a Limpid server what a gated-linear recurrent network
(Mamba, Griffin, RWKV, Vision Mamba and others) looked at, and draws the
answer.")
set(CPACK_DEBIAN_SERVICE_PACKAGE_NAME limpid-server)
set(CPACK_DEBIAN_SERVICE_PACKAGE_SECTION science)
set(CPACK_DEBIAN_SERVICE_PACKAGE_SUGGESTS limpid-client)
set(CPACK_DEBIAN_SERVICE_DESCRIPTION
"The server: keeps gated-linear recurrent networks resident and answers over
gRPC with their implicit attention matrices and with attribution maps made from
them. LibTorch for CPUs and small embedded models are included.")
set(CPACK_DEBIAN_SERVICE_PACKAGE_CONTROL_EXTRA
    "${PROJECT_SOURCE_DIR}/deploy/package/conffiles"
    "${PROJECT_SOURCE_DIR}/deploy/package/postinst"
    "${PROJECT_SOURCE_DIR}/deploy/package/prerm"
    "${PROJECT_SOURCE_DIR}/deploy/package/postrm")
set(CPACK_DEBIAN_DEV_PACKAGE_NAME liblimpid-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS
    "libgrpc++-dev, libprotobuf-dev, libabsl-dev, zlib1g-dev")
set(CPACK_DEBIAN_DEV_DESCRIPTION
"The C++ client library: headers, a static library and a CMake package for
find_package(limpid).")
# What only a Debian package has: unit and configuration outside of the prefix,
# so not part of `cmake --install` and of the tarball.
install(FILES deploy/limpid.service DESTINATION /lib/systemd/system
        COMPONENT debian EXCLUDE_FROM_ALL)
install(FILES deploy/package/server.json DESTINATION /etc/limpid
        COMPONENT debian EXCLUDE_FROM_ALL)
include(CPack)
cpack_add_component_group(service)
cpack_add_component(server GROUP service)
cpack_add_component(debian GROUP service)
