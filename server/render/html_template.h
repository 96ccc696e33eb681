// SPDX-License-Identifier: Apache-2.0
//
// The fixed parts of the HTML report, made from the files in report/. Between
// them stand, in this order, the escaped title and the report's JSON.
#pragma once

namespace limpid::render {

extern const char kHtmlHead[];
extern const char kHtmlBody[];
extern const char kHtmlTail[];

}  // namespace limpid::render
