# SPDX-License-Identifier: Apache-2.0

# limpid_library(NAME SOURCES file... [DEPS target...] [PRIVATE_DEPS target...])
# One folder = one static library limpid_NAME with the alias limpid::NAME.
function(limpid_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(limpid_${name} STATIC ${ARG_SOURCES})
  add_library(limpid::${name} ALIAS limpid_${name})
  target_link_libraries(limpid_${name}
    PUBLIC ${ARG_DEPS}
    PRIVATE "$<BUILD_INTERFACE:limpid_options>" ${ARG_PRIVATE_DEPS})
endfunction()

# limpid_precompile(TARGET HEADER) or limpid_precompile(TARGET REUSE_FROM TARGET)
# For folders whose headers are large. The templates that such headers use are
# instantiated again in every file, several seconds each with Torch's, so that
# files are compiled LIMPID_UNITY at a time.
function(limpid_precompile target)
  if(ARGV1 STREQUAL "REUSE_FROM")
    target_precompile_headers(${target} ${ARGN})
  else()
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
  if(LIMPID_UNITY GREATER 1)
    set_target_properties(${target} PROPERTIES
      UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE "${LIMPID_UNITY}")
  endif()
endfunction()

# limpid_write_list(FILE FOLDER NAMESPACE TYPE FUNCTION ENTRY INCLUDE name...)
# Writes a source file that defines `const TYPE& FUNCTION()`: the ENTRY() of
# every name, in order. A list in CMake is a registry that the linker can't
# drop, unlike objects that register themselves.
function(limpid_write_list file folder namespace type function entry include)
  set(includes)
  set(entries)
  foreach(name ${ARGN})
    string(APPEND includes "#include \"${folder}/${name}.h\"\n")
    string(APPEND entries "      ${namespace}::${name}::${entry}(),\n")
  endforeach()
  file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/${file}" CONTENT
"// Made by CMake from the list in @folder@/CMakeLists.txt.
@includes@#include \"@include@\"

namespace limpid {

const @type@& @function@() {
  static const auto* const list = new @type@{
@entries@  };
  return *list;
}

}  // namespace limpid
" @ONLY)
endfunction()
