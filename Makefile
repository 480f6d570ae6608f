# ngx_llm: an nginx module and the engine beside it.  `make help` lists targets.

BUILD     ?= build
CC        ?= cc
OPT       ?= -O2 -g
SAN       ?=
NGINX_SRC ?= /usr/share/nginx/src
PORT      ?= 8080
TLS_PORT  ?= 8443
export BUILD CC MODEL PORT TLS_PORT LISTEN NGINX_SRC SECONDS_EACH

CFLAGS    := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror $(OPT) $(SAN) \
             -iquote engine -iquote kernels -iquote ngx_module/dialect \
             -iquote ngx_module/tenant -pthread -MMD -MP
LDLIBS    := -ljansson -lpcre2-8 -lutf8proc -lm -pthread $(SAN)

ENGINE_C  := $(filter-out engine/main.c engine/top.c,$(wildcard engine/*.c))
KERNEL_C  := $(wildcard kernels/*.c kernels/cpu/*.c kernels/cuda/*.c)
GATEWAY_C := $(wildcard ngx_module/dialect/*.c ngx_module/tenant/*.c)
MODULE_C  := $(wildcard ngx_module/*.[ch] ngx_module/*/*.[ch] engine/llm_*.h)
LIB_O     := $(patsubst %.c,$(BUILD)/%.o,$(ENGINE_C) $(KERNEL_C) $(GATEWAY_C))
UNIT      := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/unit/*.c tests/kernels/*.c))
BENCH     := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/bench/*.c))
SIM_O     := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/*.c))
FUZZ      := $(patsubst tests/fuzz/%.c,%,$(filter-out %/replay.c,$(wildcard tests/fuzz/*.c)))
T_LONGEST := t/openai_client.t t/stopped.t t/page.t t/workers.t # first: nothing waits for them
MODULE    := $(BUILD)/nginx/ngx_http_llm_module.so

all: $(BUILD)/llm-engine $(BUILD)/llm-top $(MODULE)

help:
	@sed -n 's/^## //p' Makefile

## make run [MODEL=x.gguf] [PORT=8080] [TLS_PORT=8443]  install, build, serve
## make start, make stop   the same in the background
run start: deps-run
	@$(MAKE) --no-print-directory -q all || echo "Building; this takes half a minute."
	@$(MAKE) --no-print-directory -s -j2 all >/dev/null
	@conf/dev.sh $@

stop:
	@conf/dev.sh stop

## make test               everything CI runs (<= 12 minutes)
## make test-all           the long ones too
test: deps-test
	@tests/all.sh short

test-all: deps-test
	@tests/all.sh long

## make unit, t, tidy, sim-check, spin   one part of it
## make sim                the simulator's tables
unit-programs: $(UNIT)

unit: $(UNIT)
	@tests/unit.sh $(UNIT)

t: all $(BUILD)/fake_engine $(BUILD)/hostile_worker
	@prove -j5 --timer $(T_LONGEST) $(filter-out $(T_LONGEST),$(wildcard t/*.t))

# whose symbols it looks at
tidy-objects: $(filter $(BUILD)/engine/%,$(LIB_O)) $(BUILD)/engine/main.o $(BUILD)/engine/top.o

tidy:
	@$(MAKE) -s -j2 tidy-objects
	@tests/tidy $(BUILD)

sim: $(BUILD)/sim/sim
	@$<

sim-check: $(BUILD)/sim/sim
	@$< check

spin:
	@prove tests/spin/

## make cuda, cuda-check   CUDA's back end, where its toolkit is; it, emulated

## make fuzz [SECONDS_EACH=60] [TARGET=gguf]   libFuzzer, each target
fuzz:
	@tests/fuzz.sh $(or $(TARGET),$(FUZZ))

replay: $(patsubst %,$(BUILD)/fuzz/%,$(FUZZ))
	@for f in $^; do $$f tests/data/fuzz/$${f##*/}/* \
		$$(find $$(tests/seeds.sh $${f##*/} | grep . || echo /dev/null) -type f) || exit 1; done

## make bench              micro-benchmarks, prints figures
bench: $(BENCH)
	@for b in $^; do echo "== $$b"; $$b || exit 1; done

## make bench-cpu          the CPU beside llama.cpp, two hours; DO=quick: a minute
bench-cpu: deps-bench
	@tests/bench/cpu.sh $(or $(DO),all)

## make format             clang-format over engine, kernels and tests
format:
	clang-format-14 -i $(wildcard engine/*.[ch] kernels/*.[ch] kernels/*/*.[ch] tests/*/*.[ch] \
		kernels/cuda/*.cu tests/simt/*.cu tests/simt/*.cc)

clean:
	rm -rf $(BUILD)

deps-%:
	@conf/deps.sh $*

$(BUILD)/llm-engine: $(BUILD)/engine/main.o $(BUILD)/liball.a
	$(CC) -o $@ $^ $(LDLIBS)

# the C library's alone
$(BUILD)/llm-top: $(BUILD)/engine/top.o $(BUILD)/liball.a
	$(CC) -o $@ $^ $(SAN)

$(BUILD)/liball.a: $(LIB_O)
	@rm -f $@
	ar rcs $@ $^

$(MODULE): $(MODULE_C) config conf/build-module.sh
	conf/build-module.sh $(@D) $(NGINX_SRC)

# An instruction set is a file with flags of its own (kernels/cpu/NAME.c).
# -ffp-contract=off: a fused multiply-add is written, never chosen.
# With sanitizers the optimiser would take minutes for what runs seconds.
$(BUILD)/kernels/%.o: CFLAGS += $(if $(SAN),,-O3) -ffp-contract=off
# Functions over vectors are one in the other.  Line numbers are all of -g that
# they get: the places of variables would take as long as the rest.
VECTORS := avx2 avx512 avx2_panel avxvnni_panel avx512_panel avx512vnni_panel
$(VECTORS:%=$(BUILD)/kernels/cpu/%.o): CFLAGS += $(if $(SAN),-DUNROLL= \
	'-DALWAYS=static inline __attribute__((unused))',-g1)
$(BUILD)/kernels/cpu/avx2.o $(BUILD)/kernels/cpu/avx2_panel.o: \
	CFLAGS += -mavx2 -mfma -mf16c
$(BUILD)/kernels/cpu/avx512.o $(BUILD)/kernels/cpu/avx512_panel.o: \
	CFLAGS += -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq
$(BUILD)/kernels/cpu/avxvnni_panel.o: CFLAGS += -mavx2 -mfma -mf16c -mavxvnni
$(BUILD)/kernels/cpu/avx512vnni_panel.o: CFLAGS += -mavx2 -mfma -mf16c \
	-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
$(BUILD)/kernels/cpu/avx512bf16_panel.o: CFLAGS += -mavx2 -mfma -mf16c \
	-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16
$(BUILD)/kernels/cpu/scan_avx2.o: CFLAGS += -mavx2

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<

# tokens are checked inside nginx, which has OpenSSL; the engine has none
$(BUILD)/unit/% $(BUILD)/kernels/% $(BUILD)/simt/engine: LDLIBS := -lcmocka $(LDLIBS) -lcrypto
$(BUILD)/fuzz/%: LDLIBS := $(LDLIBS) -lcrypto
$(BUILD)/bench/gateway_idle: LDLIBS := -lssl -lcrypto $(LDLIBS)

$(BUILD)/fuzz/%: tests/fuzz/%.c tests/fuzz/replay.c $(BUILD)/liball.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $< tests/fuzz/replay.c $(BUILD)/liball.a $(LDLIBS)

$(BUILD)/fake_engine: tests/fake_engine.c $(BUILD)/liball.a
	$(CC) $(CFLAGS) -o $@ $< $(BUILD)/liball.a $(LDLIBS)

$(BUILD)/sim/sim: $(SIM_O) $(BUILD)/liball.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS)

# what the simulator reads is written with the simulator's own arithmetic
$(BUILD)/bench/fit: tests/bench/fit.c $(BUILD)/tests/sim/cost.o $(BUILD)/tests/sim/cost_cpu.o $(BUILD)/liball.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS)

# CUDA's back end, where its toolkit is; and the same files for the host's
# compiler, which needs the toolkit's headers alone (tests/simt/).
# -fmad=false: as -ffp-contract=off.
CUDA_HOME ?= $(firstword $(wildcard /usr/local/cuda /usr/local/cuda-*))
NVCC      := $(CUDA_HOME)/bin/nvcc
CUDA_H    := kernels/kernels.h engine/sample.h $(wildcard kernels/cuda/*.h kernels/cuda/*.cuh tests/simt/*.h tests/gpu/probe*.h)
CUDA_ARCH ?= -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a
CUDA_C    := dequant attn_plan rt_judge
CUDA_O    := $(patsubst kernels/cuda/%.cu,$(BUILD)/cuda/%.o,$(wildcard kernels/cuda/*.cu))
SIMT_O    := $(patsubst %,$(BUILD)/simt/%.o,$(filter-out rt lt,$(basename $(notdir $(CUDA_O)))) \
             rt_twin lt_twin simt $(CUDA_C))
SIMT_FLAGS := -std=c++17 $(if $(SAN),-O1,-O2) -g1 -Wall -Wextra -Werror -Wno-unknown-pragmas -fPIC \
             -fvisibility=hidden -ffp-contract=off -isystem $(CUDA_HOME)/include -iquote engine \
             -iquote kernels -iquote kernels/cuda -iquote tests/simt $(SAN)

cuda: $(BUILD)/llm_cuda.so

cuda-check:
	@tests/cuda.sh

$(BUILD)/llm_cuda.so: $(CUDA_O) $(CUDA_C:%=$(BUILD)/simt/%.o)
	$(NVCC) -shared -cudart static -o $@ $^

$(BUILD)/cuda/%.o: %.cu $(CUDA_H)
	@mkdir -p $(@D)
	$(NVCC) -std=c++17 -O2 -fmad=false $(CUDA_ARCH) -Xptxas -warn-spills,-warn-lmem-usage,-Werror \
		-Xcompiler -fPIC,-fvisibility=hidden,-iquote,engine,-iquote,kernels,-iquote,kernels/cuda \
		-c -o $@ $<

vpath %.cu kernels/cuda tests/gpu tests/simt

$(BUILD)/llm_cuda_simt.so: $(SIMT_O)
	$(CXX) -shared -o $@ $^ -pthread $(SAN)

# what the emulator does is below the program that the thread sanitizer watches
$(BUILD)/simt/simt.o: SIMT_FLAGS := $(filter-out -fsanitize=thread,$(SIMT_FLAGS))
SIMT_CC = @mkdir -p $(@D) && $(CXX) $(SIMT_FLAGS) $(PARTS) -x c++ -c -o $@ $<

$(BUILD)/simt/%.o: %.cu $(CUDA_H)
	$(SIMT_CC)

$(BUILD)/simt/%.o: tests/simt/%.cc $(CUDA_H)
	$(SIMT_CC)

# attention whose partitions are longer after 1024 positions already
$(BUILD)/simt/parts/%: PARTS := -DATTN_PARTS=4

$(BUILD)/simt/parts/%.o: kernels/cuda/%.cu $(CUDA_H)
	$(SIMT_CC)

$(BUILD)/simt/parts/attn.o: tests/simt/attn.cu $(CUDA_H)
	$(SIMT_CC)

$(BUILD)/simt/parts/attn_plan.o: kernels/cuda/attn_plan.c kernels/cuda/attn_plan.h kernels/kernels.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(PARTS) -c -o $@ $<

$(BUILD)/simt/conform $(BUILD)/simt/check: $(BUILD)/simt/%: $(BUILD)/simt/%.o \
		$(BUILD)/simt/simt.o $(BUILD)/simt/rt_twin.o $(BUILD)/simt/rt_judge.o
	$(CXX) -o $@ $^ -pthread $(SAN)

$(BUILD)/simt/attn: $(patsubst %,$(BUILD)/simt/parts/attn%.o,_decode _prefill _fast _plan) \
		$(BUILD)/simt/parts/attn.o $(BUILD)/simt/simt.o $(BUILD)/simt/rt_twin.o $(BUILD)/simt/rt_judge.o $(BUILD)/liball.a
	$(CXX) -o $@ $^ -lm -pthread $(SAN)

$(BUILD)/simt/dequant.o: kernels/dequant.c kernels/dequant.h kernels/dequant_tables.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -O3 -ffp-contract=off -fPIC -fvisibility=hidden -c -o $@ $<

$(BUILD)/simt/attn_plan.o $(BUILD)/simt/rt_judge.o: $(BUILD)/simt/%.o: kernels/cuda/%.c \
		kernels/cuda/attn_plan.h kernels/cuda/rt_judge.h kernels/kernels.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fPIC -fvisibility=hidden -c -o $@ $<

# What `make gpu` runs, of the C library and CUDA alone: on the device, and the
# same on the emulator.
GPU_C     := $(filter-out %/model_hf.c,$(wildcard engine/forward*.c engine/gguf*.c engine/model*.c \
             engine/tensor*.c engine/kv*.c engine/radix*.c)) engine/mem.c $(KERNEL_C) tests/gpu/no_files.c tests/gpu/synth.c
GPU_O     := $(patsubst %.c,$(BUILD)/%.o,$(GPU_C))
GPU_BIN   := agree engine kernels
GPU_CUDA  := $(patsubst %,$(BUILD)/tests/gpu/cuda/%,$(GPU_BIN) conform)
GPU_SIMT  := $(patsubst %,$(BUILD)/tests/gpu/simt/%,$(GPU_BIN) conform)
gpu-cuda: $(GPU_CUDA) $(BUILD)/tests/gpu/ops $(BUILD)/llm_cuda.so
GPU_NULL  := $(BUILD)/tests/gpu/null/engine $(BUILD)/tests/gpu/null/kernels
gpu-simt: $(GPU_SIMT) $(GPU_NULL) $(BUILD)/tests/gpu/ops $(BUILD)/llm_cuda_simt.so

## make gpu [PART=correct|speed|peers]   on a GPU; SIMT=1: tries it on the emulator
gpu:
	@tests/gpu/run.sh $(or $(PART),all)

# whose includes are looked at
gpu-sources:
	@echo $(GPU_C) $(GPU_BIN:%=tests/gpu/%.c) tests/kernels/ops.c

$(GPU_BIN:%=$(BUILD)/tests/gpu/cuda/%): $(BUILD)/tests/gpu/cuda/%: $(BUILD)/tests/gpu/%.o $(GPU_O) \
	$(CUDA_O) $(BUILD)/cuda/probe.o
$(BUILD)/tests/gpu/cuda/conform: $(BUILD)/cuda/conform.o $(BUILD)/cuda/rt.o $(BUILD)/simt/rt_judge.o
$(GPU_CUDA):
	@mkdir -p $(@D)
	$(NVCC) -cudart static -o $@ $^ -lm -lpthread -ldl

$(GPU_BIN:%=$(BUILD)/tests/gpu/simt/%): $(BUILD)/tests/gpu/simt/%: $(BUILD)/tests/gpu/%.o $(GPU_O) \
	$(filter-out $(CUDA_C:%=$(BUILD)/simt/%.o),$(SIMT_O)) $(BUILD)/simt/probe.o
$(BUILD)/tests/gpu/simt/conform: $(BUILD)/simt/conform.o $(BUILD)/simt/rt_twin.o $(BUILD)/simt/simt.o \
	$(BUILD)/simt/rt_judge.o
$(GPU_SIMT):
	@mkdir -p $(@D)
	$(CXX) -o $@ $^ -lm -pthread -ldl $(SAN)

# their real sizes, computed by nobody
$(GPU_NULL): $(BUILD)/tests/gpu/null/%: $(BUILD)/tests/gpu/%.o $(GPU_O) $(BUILD)/tests/gpu/probe_null.o
	@mkdir -p $(@D)
	$(CC) -o $@ $^ -lm -pthread -ldl $(SAN)

# that machine has no cmocka
$(BUILD)/tests/gpu/ops: tests/kernels/ops.c tests/gpu/cmocka.h $(GPU_O)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Itests/gpu -o $@ $< $(GPU_O) -lm -ldl

# one program each: unit tests, kernel runner, benchmarks
$(BUILD)/%: tests/%.c $(BUILD)/liball.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $< $(BUILD)/liball.a $(LDLIBS)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.PHONY: all help run start stop test test-all unit unit-programs t tidy tidy-objects sim sim-check spin fuzz \
	replay bench bench-cpu cuda cuda-check gpu gpu-cuda gpu-simt gpu-sources \
	format clean
