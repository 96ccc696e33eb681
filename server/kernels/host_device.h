// SPDX-License-Identifier: Apache-2.0
//
// What marks functions that kernels of the CPU and of a GPU share.
#pragma once

#ifdef __CUDACC__
#define LIMPID_HOST_DEVICE __host__ __device__
#else
#define LIMPID_HOST_DEVICE
#endif
