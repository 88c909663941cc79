#include "tests/support/cases.h"

#include "tests/support/op_modes.h"

namespace medvqa::testing {

const std::vector<OpGroup>& op_groups() {
  static const std::vector<OpGroup> groups{{"copy", copy_cases},
                                           {"convert", convert_cases},
                                           {"fill", fill_cases},
                                           {"accumulate", accumulate_cases},
                                           {"gemm", gemm_cases},
                                           {"dequantize_nf4", dequantize_nf4_cases},
                                           {"nf4_product", nf4_product_cases},
                                           {"quantize_nf4", quantize_nf4_cases},
                                           {"rms_norm", rms_norm_cases},
                                           {"rms_norm_backward", rms_norm_backward_cases},
                                           {"layer_norm", layer_norm_cases},
                                           {"layer_norm_backward", layer_norm_backward_cases},
                                           {"rotary_table", rotary_table_cases},
                                           {"rotary", rotary_cases},
                                           {"attention", attention_cases},
                                           {"attention_backward", attention_backward_cases},
                                           {"activation", activation_cases},
                                           {"activation_backward", activation_backward_cases},
                                           {"swiglu", swiglu_cases},
                                           {"swiglu_backward", swiglu_backward_cases},
                                           {"dropout", dropout_cases},
                                           {"gather_rows", gather_rows_cases},
                                           {"scatter_rows", scatter_rows_cases},
                                           {"scale_rows", scale_rows_cases},
                                           {"linear_cross_entropy", linear_cross_entropy_cases},
                                           {"global_norm", global_norm_cases},
                                           {"adamw", adamw_cases}};
  return groups;
}

}  // namespace medvqa::testing
