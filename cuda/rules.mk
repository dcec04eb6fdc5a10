# rules.mk - how cuda/ is built; included by the Makefile after B, CC, CXX, NVCC are set.
#   emulator   iff there is a C++17 compiler: $(B)/libcuda_emu.a, the same .cu files compiled by it (tests only; no GPU, no CUDA)
#   device     iff there is nvcc: $(B)/libcuda.a, to be linked into the program with $(CUDA_LIBS) and -DHAVE_CUDA
# The compiler's resource report (registers, spills) is kept in $(B)/cuda/*.ptxas.
CUDA_ARCHS ?= 80 90 100
CXX_WORKS  := $(shell echo 'int main(){return 0;}' | $(CXX) -std=c++17 -x c++ - -o /dev/null 2>/dev/null && echo 1)
CUDA_INC    = -Iref -I. -Icuda
CUDA_HOST   = cuda_backend matmul_lt

EMU_FLAGS = -std=c++17 -DCUDA_EMU -Itests/cuda_emu $(CUDA_INC) $(OPT) -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas \
            $(if $(filter 1,$(WERROR)),-Werror) -MMD -MP $(filter -fsanitize% -fno-sanitize% -fno-omit%,$(CFLAGS))
EMU_OBJ   = $(CUDA_HOST:%=$(B)/cuda_emu/%.o) $(B)/cuda_emu/cuda_ops32.o $(B)/cuda_emu/cuda_ops16.o $(B)/cuda_emu/cuda_emu.o
ifeq ($(CXX_WORKS),1)
EMU_LIB = $(B)/libcuda_emu.a
else
EMU_LIB =
endif
$(B)/libcuda_emu.a: $(EMU_OBJ)
	@rm -f $@ && ar rcs $@ $^
$(B)/cuda_emu/cuda_ops32.o $(B)/cuda_emu/cuda_ops16.o: $(B)/cuda_emu/cuda_ops%.o: cuda/cuda_ops.cu
	@mkdir -p $(@D)
	$(CXX) $(EMU_FLAGS) -O2 -DBITS=$* -x c++ -c $< -o $@
$(B)/cuda_emu/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(CXX) $(EMU_FLAGS) -x c++ -c $< -o $@
$(B)/cuda_emu/%.o: tests/cuda_emu/%.cc
	@mkdir -p $(@D)
	$(CXX) $(EMU_FLAGS) -O2 -c $< -o $@

NVCC_FLAGS = -std=c++17 -O3 $(CUDA_INC) $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$a,code=sm_$a) -MMD -MP
CUDA_OBJ   = $(CUDA_HOST:%=$(B)/cuda/%.o) $(B)/cuda/cuda_ops32.o $(B)/cuda/cuda_ops16.o
ifneq ($(NVCC),)
CUDA_LIB  = $(B)/libcuda.a
CUDA_ROOT = $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v $(NVCC))))
CUDA_LIBS = -L$(CUDA_ROOT)/lib64 -L$(CUDA_ROOT)/targets/x86_64-linux/lib -lcudart_static -ldl -lrt -lpthread -lstdc++
else
CUDA_LIB  =
CUDA_LIBS =
endif
$(B)/libcuda.a: $(CUDA_OBJ)
	@rm -f $@ && ar rcs $@ $^
$(B)/cuda/cuda_ops32.o $(B)/cuda/cuda_ops16.o: $(B)/cuda/cuda_ops%.o: cuda/cuda_ops.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -Xptxas -v -DBITS=$* -c $< -o $@ 2> $(@:.o=.ptxas) || { grep -v '^ptxas info' $(@:.o=.ptxas); exit 1; }
$(B)/cuda/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -c $< -o $@
cuda: $(CUDA_LIB) ## the CUDA kernels (needs nvcc), for sm_80, sm_90 and sm_100; nothing without nvcc
	@sh tests/gpu/ptxas.sh $(B)/cuda/*.ptxas

# The emulated suites: their libraries come before the ones that every test is linked with.
$(B)/tests/test_cuda $(B)/tests/test_cuda_emu: LDLIBS += $(B)/libhyb.a -lstdc++
$(B)/tests/test_cuda: $(EMU_LIB)
$(B)/tests/test_cuda_emu: $(B)/cuda_emu/planted_all.o $(EMU_LIB)
.PHONY: cuda
%.d: ;
