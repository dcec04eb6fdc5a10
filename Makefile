# hybridize: type `make help`. Everything is built under build/; the source tree stays clean.
# No -ffast-math anywhere: it makes NaN invisible to every test (tests/test_comparator.c).
CC     ?= cc
CXX    ?= c++
NVCC   ?= $(shell command -v nvcc 2>/dev/null)
# MPI=1: the programs can be started as ranks of one training, by mpirun or srun. mpicc compiles and links with CC.
MPI    ?= 0
MPICC  ?= $(shell command -v mpicc 2>/dev/null)
ifeq ($(MPI)$(MPICC),1)
$(error make MPI=1 needs mpicc (Debian, Ubuntu: apt-get install libopenmpi-dev openmpi-bin))
endif
ARCH   ?= native
B      ?= build
WERROR ?= 0
OPT    ?= -O2
# OpenMP where the compiler has it; without it everything runs on one thread, with the same bits.
OMP    ?= $(shell echo 'int main(void){return 0;}' | $(CC) -fopenmp -x c - -o /dev/null 2>/dev/null && echo -fopenmp)
WARN    = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla -Wpointer-arith $(if $(filter 1,$(WERROR)),-Werror)
ALLFLAGS = -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -ffp-contract=off -Iref -I. -MMD -MP $(CFLAGS)
LDLIBS += -lm -ldl
# `make V=1` shows every command.
Q      = $(if $(V),,@)
say    = $(if $(V),,@printf '  %-4s %s\n' '$(1)' '$(2)')
export GOMP_SPINCOUNT ?= 5000 # see short_spin() in tools/main.c
# As many jobs as there are cores, unless -j or a make above this one says how many, or `make clean all` wants an order.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS))$(filter clean,$(MAKECMDGOALS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 1)
endif

# ---- sources: ref/ is the program, cpu/ only faster ops; op files are included by their one translation unit ----
REF    = $(filter-out ref/ops/%,$(wildcard ref/*/*.c)) $(wildcard ref/ops/backend*.c) ref/ops/ref_bf16.c
CPU    = $(wildcard cpu/cpu_*.c) # one translation unit an instruction set, and the one that picks
CMDS   = tools/main.c $(wildcard tools/cmd_*.c)
TOOLS  = $(filter-out $(CMDS) tools/ranks_mpi.c,$(wildcard tools/*.c))
TESTS  = $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
COVERED = $(patsubst %.c,$(B)/%.o,$(filter ref/io/% ref/text/% ref/base/json% ref/base/file.c,$(REF))) # see tests/coverage.sh
LIBOBJ = $(REF:%.c=$(B)/%.o) $(B)/ref/ops/ref_ops32.o $(B)/ref/ops/ref_ops64.o $(CPU:%.c=$(B)/%.o)

.DEFAULT_GOAL := all
# The slow files first, so that no core is left with one of them at the end.
all: $(CPU:%.c=$(B)/%.o) hybridize ## build ./hybridize (the default); MPI=1: to be started as ranks by mpirun or srun

# The program; cuda/rules.mk has the one with the device (make cuda) and the one with the emulated device (make emu).
COMMANDS = $(filter-out $(B)/tools/main.o,$(CMDS:%.c=$(B)/%.o)) $(B)/libtools.a $(B)/libhyb.a
PROGRAMS = hybridize hybridize-cuda hybridize-emu hybridize-mpi
$(PROGRAMS): %: $(B)/%
	@cp -f $< $@
$(B)/hybridize: $(B)/tools/main.o $(COMMANDS)
# With ranks: any of them with MPI=1, and hybridize-mpi always, for the tests.
MPI_CC = OMPI_CC="$(CC)" MPICH_CC="$(CC)" $(MPICC)
LINK   = $(CC)
RANKED = $(if $(filter 1,$(MPI)),$(PROGRAMS:%=$(B)/%),$(B)/hybridize-mpi)
$(B)/hybridize-mpi: $(B)/tools/main_mpi.o $(COMMANDS)
$(RANKED): $(B)/tools/ranks_mpi.o
$(RANKED): LINK = $(MPI_CC)
$(B)/tools/ranks_mpi.o: tools/ranks_mpi.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(MPI_CC) $(ALLFLAGS) -c $< -o $@
$(PROGRAMS:%=$(B)/%):
	$(call say,LINK,$@)
	$(Q)$(LINK) $(OPT) $(OMP) $(LDFLAGS) $^ $(LDLIBS) -o $@

$(B)/libhyb.a: $(LIBOBJ)
	@rm -f $@ && ar rcs $@ $^
$(B)/libtools.a: $(TOOLS:%.c=$(B)/%.o)
	@rm -f $@ && ar rcs $@ $^

# The oracle for other programs (tools/hyb.h): one shared library of position-independent objects, built apart.
lib: $(B)/libhyb.so $(B)/hyb.pc ## build/libhyb.so: ops, gradients and verdicts for other programs (tools/hyb.h, tests/peers/hyb.py)
$(B)/libhyb.so: FORCE
	@$(MAKE) --no-print-directory $(B)/pic/tools/hyb.o $(B)/pic/libtools.a $(B)/pic/libhyb.a B=$(B)/pic \
	  OPT="$(OPT) -fPIC -fvisibility=hidden"
	$(Q)$(CC) -shared $(OMP) -Wl,-soname,libhyb.so.1 -Wl,--exclude-libs,ALL $(LDFLAGS) $(B)/pic/tools/hyb.o $(B)/pic/libtools.a \
	  $(B)/pic/libhyb.a $(LDLIBS) -o $@
conformance: $(B)/hybridize ## build/conformance: cases of every mixer and regime with float64 results, for kernels of others (14 MB)
	@rm -rf $(B)/conformance && mkdir -p $(B)/conformance
	@cp LICENSE tests/conformance/* $(B)/conformance
	@$(B)/hybridize gradcheck --pack $(B)/conformance >$(B)/conformance/cases.csv
	@echo "$(B)/conformance: $$(($$(wc -l <$(B)/conformance/cases.csv) - 1)) cases, $$(du -sk $(B)/conformance | cut -f1) kB"
PREFIX ?= /usr/local
$(B)/hyb.pc: Makefile
	@mkdir -p $(@D)
	@printf 'prefix=%s\nName: hyb\nDescription: float64 reference of linear and softmax attention, with gradients\nVersion: 0.1.0\nLibs: -L$${prefix}/lib -lhyb\nCflags: -I$${prefix}/include\n' $(PREFIX) >$@

$(B)/ref/ops/ref_ops32.o: ref/ops/ref_ops.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALLFLAGS) -DBITS=32 -c $< -o $@
$(B)/ref/ops/ref_ops64.o: ref/ops/ref_ops.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALLFLAGS) -DBITS=64 -c $< -o $@
$(B)/cpu/%.o: cpu/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALLFLAGS) $(if $(findstring -fsanitize,$(OPT)),,-O3) $(OMP) -c $< -o $@
$(B)/ref/ops/backend.o: ALLFLAGS += $(if $(CPU),,-DHYB_NO_CPU)
$(B)/ref/ops/backend.o: $(CPU)
ifdef COVERAGE
$(COVERED): ALLFLAGS += -O0 --coverage
LDLIBS += --coverage $(COVERAGE)
endif
# main.c is compiled again when the commit changes.
MAIN = $(B)/tools/main.o $(B)/tools/main_cuda.o $(B)/tools/main_emu.o $(B)/tools/main_mpi.o
$(MAIN): $(B)/main.flags
$(B)/main.flags: FORCE
	@mkdir -p $(@D)
	@echo '$(GIT_ID) $(MPI)' | cmp -s - $@ || echo '$(GIT_ID) $(MPI)' >$@
FORCE:
GIT_ID := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
$(if $(filter 1,$(MPI)),$(MAIN),$(B)/tools/main_mpi.o): ALLFLAGS += -DHAVE_MPI
$(MAIN): ALLFLAGS += -DGIT_ID='"$(GIT_ID)"'
$(B)/tools/main_%.o: tools/main.c
	@mkdir -p $(@D)
	$(call say,CC,$< ($*))
	$(Q)$(CC) $(ALLFLAGS) -c $< -o $@
# What arranges and prints instead of computing compiles a third faster this way, and runs as fast.
LIGHT = $(CMDS) $(filter-out tools/opcheck% tools/compare.c,$(TOOLS)) $(filter ref/run/% ref/report/% ref/eval/%,$(REF))
$(LIGHT:%.c=$(B)/%.o): ALLFLAGS += $(if $(filter -O2,$(OPT)),-O1)
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALLFLAGS) -c $< -o $@

$(B)/tests/%: $(B)/tests/%.o $(B)/libtools.a $(B)/libhyb.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(OPT) $(OMP) $(LDFLAGS) $^ $(shell pkg-config --libs check 2>/dev/null || echo -lcheck) $(LDLIBS) -o $@

# ---- in place ---- (the page and the completion are printed by the program, from the tables of --help)
install: $(B)/hybridize $(B)/hyb.pc ## program, man page, bash completion, and the library if it was built, under PREFIX (DESTDIR before it)
	@install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 755 $(B)/hybridize $(DESTDIR)$(PREFIX)/bin/hybridize
	@[ ! -f $(B)/hybridize-cuda ] || install -m 755 $(B)/hybridize-cuda $(DESTDIR)$(PREFIX)/bin/hybridize-cuda
	$(B)/hybridize help man >$(DESTDIR)$(PREFIX)/share/man/man1/hybridize.1
	$(B)/hybridize help completion >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/hybridize
	@[ ! -f $(B)/libhyb.so ] || { install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include && \
	  install -m 755 $(B)/libhyb.so $(DESTDIR)$(PREFIX)/lib/libhyb.so.1 && ln -sf libhyb.so.1 $(DESTDIR)$(PREFIX)/lib/libhyb.so && \
	  install -m 644 tools/hyb.h $(DESTDIR)$(PREFIX)/include/hyb.h && \
	  sed 's|^prefix=.*|prefix=$(PREFIX)|' $(B)/hyb.pc >$(DESTDIR)$(PREFIX)/lib/pkgconfig/hyb.pc; }

# ---- tests ----
test: libcheck $(TESTS:%=$(B)/tests/%) $(B)/hybridize $(if $(MPICC),$(B)/hybridize-mpi) ## build and run every test (installs libcheck with apt-get if it is missing and it may)
	@tests/run.sh $(B)/test-logs $(TESTS:%=$(B)/tests/%)
asan: ## the same tests under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory test B=build/asan WERROR=0 OPT="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" CFLAGS="-DDEBUG $(CFLAGS)"
demo: hybridize ## the whole method on the embedded teacher: a table, and demo-run/report.html
	./hybridize run --config testdata/demo.json -o demo-run --resume
debug: ## unoptimised build for a debugger: build/debug/hybridize
	@$(MAKE) --no-print-directory build/debug/hybridize B=build/debug OPT="-O0 -g3 -DDEBUG -fsanitize=address,undefined"
mutate: ## break every op on purpose, one line at a time, and require the tests to notice (minutes)
	@tests/mutate.sh
tsan: ## the threads under the thread sanitizer: ops, training with every mixer, evaluation; needs clang and libomp (2 minutes)
	@tests/tsan.sh
valgrind: hybridize ## the command line under valgrind's memcheck (1 minute)
	@tests/valgrind.sh
coverage: ## branches of the readers and writers that the tests take (minutes; gcc's gcov)
	@tests/coverage.sh
fuzz: ## run each libFuzzer target for FUZZ_SECONDS (30) seconds; needs clang
	@tests/fuzz.sh $(or $(FUZZ_SECONDS),30)
lint: ## rules of the house: dependencies, banned functions, warnings as errors with gcc and clang
	@tests/lint.sh
	@for cc in gcc clang; do command -v $$cc >/dev/null || continue; \
	  printf '%s\n' $(REF) $(CMDS) $(TOOLS) | xargs -n 10 -P "$$(nproc 2>/dev/null || echo 1)" \
	    $$cc -std=c11 -D_GNU_SOURCE -O1 -fsyntax-only $(filter-out -Werror,$(WARN)) -Werror -Iref -I. || exit 1; \
	  for b in 32 64; do $$cc -std=c11 -D_GNU_SOURCE -fsyntax-only $(filter-out -Werror,$(WARN)) -Werror -DBITS=$$b -Iref -I. ref/ops/ref_ops.c || exit 1; done; done
	@echo "lint ok"
format: ## clang-format (version 14) over all C sources
	@clang-format --version | grep -q 'version 14' || echo "note: written for clang-format 14"
	clang-format -i $(wildcard ref/*/*.[ch] tools/*.[ch] cpu/*.[ch] tests/*.[ch])
$(TESTS:%=$(B)/tests/%.o): | libcheck
libcheck:
	@printf '#include <check.h>\n' | $(CC) -E - >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq check pkg-config; \
	  else echo "make test needs libcheck: install the package 'check' (Debian, Ubuntu: sudo apt-get install check)" >&2; exit 1; fi; }

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n",$$1,$$2}' $(filter Makefile %.mk,$(MAKEFILE_LIST))
clean: ## remove everything that make made
	rm -rf build $(PROGRAMS)
-include $(shell find $(B) -name '*.d' 2>/dev/null)

.PHONY: FORCE lib install conformance all help clean test demo asan debug mutate tsan valgrind coverage fuzz lint format libcheck
.SECONDARY:
-include cuda/rules.mk
