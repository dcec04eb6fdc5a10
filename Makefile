# hybridize: type `make help`. Everything is built under build/; the source tree stays clean.
# No -ffast-math anywhere: it makes NaN invisible to every test (tests/test_check.c).
CC     ?= cc
CXX    ?= c++
NVCC   ?= $(shell command -v nvcc 2>/dev/null)
ARCH   ?= native
B      ?= build
WERROR ?= 0
OPT    ?= -O2 -g
OMP    ?= $(shell echo 'int main(void){return 0;}' | $(CC) -fopenmp -x c - -o /dev/null 2>/dev/null && echo -fopenmp)
WARN    = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla -Wpointer-arith $(if $(filter 1,$(WERROR)),-Werror)
ALLFLAGS = -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -ffp-contract=off -Iref -I. -MMD -MP $(CFLAGS)
LDLIBS += -lm

# ---- sources: ref/ is the program, cpu/ only faster ops; op files are included by their one translation unit ----
REF    = $(filter-out ref/ops/%,$(wildcard ref/*/*.c)) $(wildcard ref/ops/backend*.c)
CPU    = $(wildcard cpu/cpu_ops.c)
CMDS   = tools/main.c $(wildcard tools/cmd_*.c)
TOOLS  = $(filter-out $(CMDS),$(wildcard tools/*.c))
TESTS  = $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
LIBOBJ = $(REF:%.c=$(B)/%.o) $(B)/ref/ops/ref_ops32.o $(B)/ref/ops/ref_ops64.o $(CPU:%.c=$(B)/%.o)

.DEFAULT_GOAL := all
all: hybridize ## build ./hybridize (the default)

hybridize: $(B)/hybridize
	@cp -f $< $@
$(B)/hybridize: $(CMDS:%.c=$(B)/%.o) $(B)/libtools.a $(B)/libhyb.a
	$(CC) $(OPT) $(OMP) $(LDFLAGS) $^ $(LDLIBS) -o $@

$(B)/libhyb.a: $(LIBOBJ)
	@rm -f $@ && ar rcs $@ $^
$(B)/libtools.a: $(TOOLS:%.c=$(B)/%.o)
	@rm -f $@ && ar rcs $@ $^

$(B)/ref/ops/ref_ops32.o: ref/ops/ref_ops.c
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) -DBITS=32 -c $< -o $@
$(B)/ref/ops/ref_ops64.o: ref/ops/ref_ops.c
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) -DBITS=64 -c $< -o $@
$(B)/cpu/%.o: cpu/%.c
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) -O3 $(OMP) -c $< -o $@
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) -c $< -o $@

$(B)/tests/%: $(B)/tests/%.o $(B)/libtools.a $(B)/libhyb.a
	$(CC) $(OPT) $(OMP) $(LDFLAGS) $^ $(shell pkg-config --libs check 2>/dev/null || echo -lcheck) $(LDLIBS) -o $@

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n",$$1,$$2}' $(firstword $(MAKEFILE_LIST))
clean: ## remove build/
	rm -rf build hybridize
-include $(shell find $(B) -name '*.d' 2>/dev/null)
.PHONY: all help clean
.SECONDARY:
