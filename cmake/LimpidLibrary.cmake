# SPDX-License-Identifier: Apache-2.0

# limpid_library(NAME SOURCES file... [DEPS target...] [PRIVATE_DEPS target...])
# One folder = one static library limpid_NAME with the alias limpid::NAME.
function(limpid_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(limpid_${name} STATIC ${ARG_SOURCES})
  add_library(limpid::${name} ALIAS limpid_${name})
  target_link_libraries(limpid_${name}
    PUBLIC ${ARG_DEPS}
    PRIVATE limpid_options ${ARG_PRIVATE_DEPS})
endfunction()
