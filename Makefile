# ngx_llm.  make help lists the targets.

BUILD    ?= build
CC       ?= cc
OPT      ?= -O2 -g
SAN      ?=
CFLAGS   := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror $(OPT) $(SAN) \
            -Iengine -Ikernels -Ingx_module/dialect -pthread -MMD -MP
LDLIBS   := -ljansson -lm -pthread $(SAN)

ENGINE_C := $(filter-out engine/main.c,$(wildcard engine/*.c))
KERNEL_C := $(wildcard kernels/*.c kernels/cpu/*.c)
DIALECT_C := $(wildcard ngx_module/dialect/*.c)
LIB_O    := $(patsubst %.c,$(BUILD)/%.o,$(ENGINE_C) $(KERNEL_C) $(DIALECT_C))
UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/*.c))

all: $(BUILD)/llm-engine

$(BUILD)/llm-engine: $(BUILD)/engine/main.o $(BUILD)/liball.a
	$(CC) -o $@ $^ $(LDLIBS)

$(BUILD)/liball.a: $(LIB_O)
	rm -f $@ && ar rcs $@ $^

# An instruction set is a file with flags of its own (kernels/cpu/NAME.c).
# -ffp-contract=off: a fused multiply-add is written, never chosen.
$(BUILD)/kernels/%.o: CFLAGS += -O3 -ffp-contract=off
$(BUILD)/kernels/cpu/avx2.o: CFLAGS += -mavx2 -mfma -mf16c
$(BUILD)/kernels/cpu/avx512.o: CFLAGS += -mavx512f -mavx512bw -mavx512vl \
	-mavx512dq -mavx2 -mfma -mf16c

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<

$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/liball.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $< $(BUILD)/liball.a -lcmocka $(LDLIBS)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.PHONY: all
