"""ONNX's own tests: every node test of the operators that are known, the converted, simple and light models.

What is left out stands in `LEFT_OUT`, each with its reason; everything else must pass. The number is printed in the
end.
"""

from __future__ import annotations

import warnings

from convolve.onnx import backend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the cases are computed when they are collected, overflows and all
    from onnx.backend.test import BackendTest

    SUITE = BackendTest(backend.ConvolveBackend, __name__)

LEFT_OUT = {
    # operators that are not known (where ONNX has the test once more, expanded to known ones, that is run)
    r"(flex|linear_)?attention_(?!.*expanded)": "attention: language models",
    r"flexattention_.*|linear_attention_.*": "their expansions hold graphs of another domain, or a Scan",
    r"(rotary_embedding|causal_conv_with_state|swiglu)(?!.*expanded)": "parts of language models",
    r"rotary_embedding(_3d_input|_interleaved|_no_position_ids(_interleaved)?)?_expanded": "splits into no elements",
    r"causal_conv_with_state_kernel_size_one_expanded": "a constant without elements",
    r"(adagrad|adam|nesterov_momentum|momentum)(_multiple)?_cpu|gradient_of": "training in the graph: fit does it here",
    r"nllloss_(?!.*expanded)|sce_": "losses: fit has its own",
    r"ai_onnx_ml": "decision trees, another domain",
    r"(gru|lstm|rnn|simple_rnn|scan|scan9|loop\d*|if)_": "recurrence and branches",
    r"range_.*_expanded|affine_grid_.*_expanded": "a Loop or an If in a node",
    r"sequence_|split_to_sequence|optional_|identity_(opt|sequence)|.*_sequence_model": "sequences, optional values",
    r"string_|strnorm|regex_|tfidf|equal_string": "text",
    r"bitshift|bitwise|bitcast": "bits of integers",
    r"bernoulli|training_dropout(_mask|_default|_default_mask)?_cpu": "random numbers outside of fit",
    r"dft|stft|(blackman|hamming|hann)window(?!.*expanded)|melweight": "spectra",
    r"image_decoder": "decoding of files: datasets and predict read images",
    r"(gridsample|affine_grid|basic_deform_conv|deform_conv|roialign|col2im|maxunpool|det)_?": "not among those known",
    r"center_crop_pad(?!.*expanded)": "not among those known",
    r"nonmaxsuppression|nonzero|compress|unique": "results whose shape depends on elements",
    r"scatter|tensorscatter|gathernd|cumsum|cumprod|einsum|reversesequence|eyelike": "not among those known",
    r"qlinear|matmulinteger|convinteger": "integer arithmetic: QuantizeLinear and DequantizeLinear are known",
    r"maxpool_with_argmax": "MaxPool's second output, indices into the flattened input",
    r"batchnorm_.*_training_mode": "BatchNormalization's further outputs: fit keeps the statistics",
    # element types
    r".*(FLOAT8|FLOAT4|float8|float4|e4m3|e5m2|e2m1|e8m0)": "floats of 8 and 4 bits",
    r".*(bfloat16|BFLOAT16|_bf16)": "bfloat16 at the interface, which NumPy lacks",
    r".*(INT4|INT2|int4|int2)_?": "integers of 4 and 2 bits",
    # values
    r"reduce_(prod_empty_set|l2_empty_set_expanded|sum_square_empty_set_expanded|max_empty_set_bool)": "no elements",
    r"tri[ul]_zero|split_zero_size_splits|slice_start_out_of_bounds|reshape_allowzero_reordered": "no elements",
    r"operator_add_(broadcast|size1_right_broadcast|size1_singleton_broadcast)": "doubles beyond float32",
    r"operator_addconstant": "doubles beyond float32",
}
"""Patterns of what follows `test_` in a name, and why these are left out."""

for pattern in LEFT_OUT:
    SUITE.exclude(rf"^test_({pattern})")
globals().update(SUITE.test_cases)
