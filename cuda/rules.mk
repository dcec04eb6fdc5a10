# rules.mk - how cuda/ is built; included by the Makefile after B, CC, CXX, NVCC are set.
#   make emu   iff there is a C++17 compiler: $(B)/libcuda_emu.a, the same .cu files compiled by it (no GPU, no CUDA), and
#              ./hybridize-emu, the program with that device
#   make cuda  iff there is nvcc: $(B)/libcuda.a, and ./hybridize-cuda, the program with the device
# sm_90 is built as sm_90a, which has wgmma. The compiler's resource report (registers, spills) is kept in $(B)/cuda/*.ptxas.
# CUDA_ARCHS: those of this machine's GPUs; where there is none, all three that the kernels are written for.
ifndef CUDA_ARCHS
CUDA_ARCHS := $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -E '^[0-9]+\.[0-9]$$' | tr -d . | sort -un),80 90 100)
endif
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
	$(call say,C++,$<)
	$(Q)$(CXX) $(EMU_FLAGS) -O2 -DBITS=$* -x c++ -c $< -o $@
$(B)/cuda_emu/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(call say,C++,$<)
	$(Q)$(CXX) $(EMU_FLAGS) -x c++ -c $< -o $@
$(B)/cuda_emu/%.o: tests/cuda_emu/%.cc
	@mkdir -p $(@D)
	$(call say,C++,$<)
	$(Q)$(CXX) $(EMU_FLAGS) -O2 -c $< -o $@

NVCC_FLAGS = -std=c++17 -O3 $(CUDA_INC) $(foreach a,$(CUDA_ARCHS:90=90a),-gencode arch=compute_$a,code=sm_$a) -MMD -MP
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
	$(call say,NVCC,$<)
	$(Q)$(NVCC) $(NVCC_FLAGS) -Xptxas -v -DBITS=$* -c $< -o $@ 2> $(@:.o=.ptxas) || { grep -v '^ptxas info' $(@:.o=.ptxas); exit 1; }
$(B)/cuda/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)$(NVCC) $(NVCC_FLAGS) -c $< -o $@
cuda: $(if $(CUDA_LIB),hybridize-cuda) ## ./hybridize-cuda: the program with the CUDA kernels, for this machine's GPU (CUDA_ARCHS); nothing without nvcc
	@[ -z '$(CUDA_LIB)' ] || sh tests/gpu/ptxas.sh $(B)/cuda/*.ptxas
emu: $(if $(EMU_LIB),hybridize-emu) ## ./hybridize-emu: the program with the same kernels on an emulated device (very slow; for gradcheck)
$(B)/hybridize-cuda: $(B)/tools/main_cuda.o $(COMMANDS) $(CUDA_LIB)
$(B)/hybridize-cuda: LDLIBS += $(B)/libhyb.a $(CUDA_LIBS)
$(B)/tools/main_cuda.o: ALLFLAGS += -DHAVE_CUDA
$(B)/hybridize-emu: $(B)/tools/main_emu.o $(COMMANDS) $(EMU_LIB)
$(B)/hybridize-emu: LDLIBS += $(B)/libhyb.a -lstdc++ -lm
$(B)/tools/main_emu.o: ALLFLAGS += -DHAVE_CUDA_EMU
# Under the sanitizers the device code is left out: nvcc has none of them, and the emulator has them all.
TOOL_CUDA = $(if $(findstring -fsanitize,$(OPT)),,$(CUDA_LIB))

# The emulated suites: their libraries come before the ones that every test is linked with.
$(B)/tests/test_cuda $(B)/tests/test_rounding $(B)/tests/test_cuda_emu: LDLIBS += $(B)/libhyb.a -lstdc++ -lm
$(B)/tests/test_cuda $(B)/tests/test_rounding: $(EMU_LIB)
$(B)/tests/test_cuda_emu: $(B)/cuda_emu/planted_all.o $(EMU_LIB)

GPU_PACK = $(B)/gpu_verify $(B)/gpu_bench
# The device run (tests/gpu/): on a machine with a GPU, or `make gpu-verify-emu` for the same checks on the emulator.
$(B)/gpu_verify: $(B)/tests/gpu/verify.o $(B)/tests/gpu/large_check.o $(B)/libtools.a $(B)/libhyb.a $(TOOL_CUDA) $(EMU_LIB)
	$(CC) $(OPT) $(LDFLAGS) $^ $(B)/libtools.a $(B)/libhyb.a $(if $(TOOL_CUDA),$(CUDA_LIBS)) -lstdc++ $(OMP) $(LDLIBS) -o $@
$(B)/tests/gpu/verify.o: ALLFLAGS += -Itests $(if $(TOOL_CUDA),-DHAVE_CUDA) $(if $(EMU_LIB),-DHAVE_CUDA_EMU)
$(B)/gpu_bench: tests/gpu/bench.cu $(B)/tests/gpu/bench_model.o $(CUDA_LIB) $(B)/libtools.a $(B)/libhyb.a
	$(NVCC) $(NVCC_FLAGS) -Itests/gpu tests/gpu/bench.cu $(filter %.o %.a,$^) $(B)/libhyb.a $(CUDA_LIBS) $(OMP:%=-Xcompiler %) -o $@
$(B)/gpu_bench_emu: tests/gpu/bench.cu $(B)/tests/gpu/bench_model.o $(EMU_LIB) $(B)/libtools.a $(B)/libhyb.a
	$(CXX) $(EMU_FLAGS) -Itests/gpu -x c++ tests/gpu/bench.cu -x none $(filter %.o %.a,$^) $(B)/libhyb.a $(LDFLAGS) $(OMP) $(LDLIBS) -o $@
$(B)/tests/gpu/bench_model.o $(B)/tests/gpu/large_check.o: ALLFLAGS += -Itests/gpu -Itests
# One at a time on a device, also under make -j.
GPU_ALONE = $(if $(shell command -v flock),flock $(B)/gpu.lock)
gpu-verify: $(B)/gpu_verify ## on a GPU: every op, models and training against the CPU
	@$(GPU_ALONE) $(B)/gpu_verify
gpu-bench: $(B)/gpu_bench ## on a GPU: every op and whole steps timed beside the copy bandwidth and the matrix rate
	@rm -f $(B)/bench.csv && $(GPU_ALONE) $(B)/gpu_bench $(B)/bench.csv
gpu-device: ## on a GPU: tests/gpu/device.sh, all that a device is asked in 300 s, in the order of what is learnt a second
	@tests/gpu/device.sh
gpu-pack: CUDA_ARCHS = 90
gpu-pack: $(GPU_PACK) ## build/gpu_pack: the binaries of gpu-device for sm_90, stripped, with its scripts, for a machine without a compiler
	@rm -rf $(B)/gpu_pack && mkdir -p $(B)/gpu_pack
	@cp tests/gpu/device.sh tests/gpu/peers.py tests/peers/official_step.py $(B)/gpu_pack
	@for f in $(GPU_PACK); do cp $$f $(B)/gpu_pack/ && strip $(B)/gpu_pack/$$(basename $$f) || exit 1; done
	@du -sk $(B)/gpu_pack | sed 's/\t.*/ kB in $(subst /,\/,$(B))\/gpu_pack/'
gpu-device-emu: $(B)/gpu_verify $(B)/gpu_bench_emu ## gpu-device as a whole on the emulator, with /bin/echo for what is not there; ONLY=rmsnorm for one op (minutes without)
	@OUT=$(B)/device_emu GPU_VERIFY=$(B)/gpu_verify GPU_BENCH=$(B)/gpu_bench_emu BACKENDS="cuda-emu cuda-emu-bf16" NCU=/bin/echo SANITIZER=/bin/echo \
	  PEERS=/bin/echo OFFICIAL=/bin/echo TOTAL=$(or $(TOTAL),3600) tests/gpu/device.sh $(if $(ONLY),--only $(ONLY))
gpu-bench-emu: $(B)/gpu_bench_emu ## every row of gpu-bench at tiny shapes on the emulator, and its scripts: what can be checked without a GPU
	@sh -n tests/gpu/device.sh && bash -n tests/gpu/device.sh && sh -n tests/gpu/ptxas.sh && python3 -c "import ast; ast.parse(open('tests/gpu/peers.py').read())"
	@$(B)/gpu_bench_emu >$(B)/bench_emu.txt || { cat $(B)/bench_emu.txt; exit 1; }
	@cat $(B)/bench_emu.txt
	@! command -v python3 >/dev/null || python3 tests/peers/official_step.py --device cpu --tiny --ours $(B)/bench_emu.txt
gpu-verify-emu: $(B)/gpu_verify ## the checks of gpu-verify on the emulator (many minutes)
	@$(B)/gpu_verify cuda-emu cuda-emu-bf16
mutate-cuda: $(B)/hybridize-emu ## break the fast CUDA kernels on purpose, one line at a time, and require gradcheck on the emulator to notice (minutes)
	@B=$(B) CXX="$(CXX)" tests/cuda_emu/mutate.sh
%.d: ;
.PHONY: gpu-device gpu-pack gpu-device-emu mutate-cuda cuda emu gpu-verify gpu-bench gpu-verify-emu gpu-bench-emu
