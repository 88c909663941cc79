// stb_image cut down to BMP. Compiled once, in stb_bmp.cpp.
#pragma once

#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_MAX_DIMENSIONS 65536
#include <stb/stb_image.h>
