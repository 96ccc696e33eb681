# SPDX-License-Identifier: Apache-2.0
# LibTorch from the pinned PyPI wheel, as imported targets of our own: the
# wheel's CMake package demands a CUDA toolkit even for its CPU libraries and
# brings a protobuf target that is not the system's.
#
#   limpid::torch    headers and libraries; link it PRIVATE, and never to a
#                    target that also sees gRPC or Protobuf headers
#   limpid::cublas   the cuBLAS that LibTorch loads (CUDA builds only)
file(GLOB _torch_roots
     "${LIMPID_PYTHON_ENV}/lib/python3*/site-packages/torch")
list(LENGTH _torch_roots _count)
if(NOT _count EQUAL 1)
  message(FATAL_ERROR
    "No torch wheel in ${LIMPID_PYTHON_ENV}; run scripts/setup first")
endif()
list(GET _torch_roots 0 LIMPID_TORCH_ROOT)
get_filename_component(LIMPID_SITE_PACKAGES "${LIMPID_TORCH_ROOT}" DIRECTORY)

function(_limpid_torch_library name file)
  add_library(${name} SHARED IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES
    IMPORTED_LOCATION "${LIMPID_TORCH_ROOT}/lib/${file}"
    IMPORTED_NO_SONAME ON)
endfunction()
_limpid_torch_library(limpid_torch_c10 libc10.so)
_limpid_torch_library(limpid_torch_cpu libtorch_cpu.so)

add_library(limpid_torch INTERFACE)
add_library(limpid::torch ALIAS limpid_torch)
target_include_directories(limpid_torch SYSTEM INTERFACE
  "${LIMPID_TORCH_ROOT}/include"
  "${LIMPID_TORCH_ROOT}/include/torch/csrc/api/include")
target_link_libraries(limpid_torch INTERFACE limpid_torch_cpu limpid_torch_c10)
# at::parallel_for is a template of ATen's headers that is serial without this.
# Its threads are those of the library that LibTorch brings.
_limpid_torch_library(limpid_torch_gomp libgomp.so.1)
target_compile_options(limpid_torch INTERFACE
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fopenmp>)
target_link_libraries(limpid_torch INTERFACE limpid_torch_gomp)
if(LIMPID_WITH_CUDA)
  _limpid_torch_library(limpid_torch_c10_cuda libc10_cuda.so)
  # Nothing refers to a symbol of libtorch_cuda, but loading it is what
  # registers the CUDA kernels of ATen.
  target_link_libraries(limpid_torch INTERFACE
    limpid_torch_c10_cuda CUDA::cudart
    "-Wl,--push-state,--no-as-needed,${LIMPID_TORCH_ROOT}/lib/libtorch_cuda.so,--pop-state")
  # By flags that CMake does not look into: it would put the toolkit's folder,
  # which may hold another cuBLAS, before this one.
  set(_cu13 "${LIMPID_SITE_PACKAGES}/nvidia/cu13")
  add_library(limpid_cublas INTERFACE)
  add_library(limpid::cublas ALIAS limpid_cublas)
  target_include_directories(limpid_cublas SYSTEM INTERFACE "${_cu13}/include")
  target_link_options(limpid_cublas INTERFACE "-Wl,-rpath,${_cu13}/lib")
  target_link_libraries(limpid_cublas INTERFACE
    "-Wl,${_cu13}/lib/libcublas.so.13")
endif()
# libtorch finds its own dependencies by its RPATH; the linker needs telling.
file(GLOB _wheel_libs "${LIMPID_SITE_PACKAGES}/nvidia/*/lib")
foreach(_dir ${_wheel_libs} "${LIMPID_TORCH_ROOT}/lib")
  target_link_options(limpid_torch INTERFACE "-Wl,-rpath-link,${_dir}")
endforeach()
