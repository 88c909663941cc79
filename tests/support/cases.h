// The case list, file by file; op_modes.h's op_groups() joins them.
#pragma once

#include <vector>

#include "tests/support/op_case.h"

namespace medvqa::testing {

std::vector<OpCase> gemm_cases();
std::vector<OpCase> dequantize_nf4_cases();
std::vector<OpCase> nf4_product_cases();
std::vector<OpCase> quantize_nf4_cases();
std::vector<OpCase> rms_norm_cases();
std::vector<OpCase> rms_norm_backward_cases();
std::vector<OpCase> layer_norm_cases();
std::vector<OpCase> layer_norm_backward_cases();
std::vector<OpCase> rotary_table_cases();
std::vector<OpCase> rotary_cases();
std::vector<OpCase> attention_cases();
std::vector<OpCase> attention_backward_cases();
std::vector<OpCase> activation_cases();
std::vector<OpCase> activation_backward_cases();
std::vector<OpCase> swiglu_cases();
std::vector<OpCase> swiglu_backward_cases();
std::vector<OpCase> dropout_cases();
std::vector<OpCase> copy_cases();
std::vector<OpCase> convert_cases();
std::vector<OpCase> fill_cases();
std::vector<OpCase> accumulate_cases();
std::vector<OpCase> gather_rows_cases();
std::vector<OpCase> scatter_rows_cases();
std::vector<OpCase> scale_rows_cases();
std::vector<OpCase> linear_cross_entropy_cases();
std::vector<OpCase> global_norm_cases();
std::vector<OpCase> adamw_cases();

}  // namespace medvqa::testing
