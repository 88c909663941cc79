// cuDNN's functions, found when the program runs: it is linked against none of them, so that it
// starts on machines without cuDNN.
#pragma once

namespace medvqa::cuda {

// Looks for libcudnn.so.9 where the system looks for libraries, then where the build found it.
// False where it is not, or lacks a function we call; cuDNN must not be called then.
bool load_cudnn();

}  // namespace medvqa::cuda
