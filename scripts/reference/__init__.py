"""The reference side of the fidelity harness: transformers + PEFT + bitsandbytes.

compare.py and program.py need only numpy and safetensors, so that the committed fixtures can be
checked without the reference stack; the other modules need scripts/requirements-reference.txt.
"""
