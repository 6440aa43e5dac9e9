# SPDX-License-Identifier: Apache-2.0
# What makes a mistake of ours harder to use against Dom0, in what is released; tests/packaging looks for it in the
# packages' programs. Sets VMSG_UNFORTIFIED: what a target that is not optimised (a test) adds, as the C library's
# checks need -O.
if(VMSG_SANITIZE OR NOT CMAKE_BUILD_TYPE MATCHES "^(Release|RelWithDebInfo)$")
  set(VMSG_UNFORTIFIED "")
  return()
endif()
include(CheckCXXCompilerFlag)
include(CheckPIESupported)

check_pie_supported()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(VMSG_UNFORTIFIED -U_FORTIFY_SOURCE)
add_compile_options(-fno-semantic-interposition)
add_link_options(-Wl,-z,relro -Wl,-z,now)
# The last two are x86's and arm64's.
foreach(flag -fstack-protector-strong -fstack-clash-protection -fcf-protection -mbranch-protection=standard)
  string(MAKE_C_IDENTIFIER "HAVE${flag}" have)
  check_cxx_compiler_flag(${flag} ${have})
  if(${have})
    add_compile_options(${flag})
  endif()
endforeach()
# As one option: CMake would drop the second of two -U_FORTIFY_SOURCE.
add_compile_options("SHELL:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3")
